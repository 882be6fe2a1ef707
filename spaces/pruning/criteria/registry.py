"""The criteria by name: the built-in ones, and those that a user adds."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from types import MappingProxyType

from spaces.code_digest import code_digest
from spaces.digest import digest_of
from spaces.errors import ConfigError
from spaces.pruning.criteria.criterion import Criterion

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "magnitude_l1": "spaces.pruning.criteria.magnitude_l1:MagnitudeL1",
        "magnitude_l2": "spaces.pruning.criteria.magnitude_l2:MagnitudeL2",
        "bn_gamma": "spaces.pruning.criteria.bn_gamma:BnGamma",
        "fpgm": "spaces.pruning.criteria.fpgm:Fpgm",
        "taylor": "spaces.pruning.criteria.taylor:Taylor",
        "disturbed_taylor": "spaces.pruning.criteria.disturbed_taylor:DisturbedTaylor",
        "condition": "spaces.pruning.criteria.condition:Condition",
        "random": "spaces.pruning.criteria.random_scores:RandomScores",
    }
)
"""Value of the knob `prune.criterion` to `module:class`. They import torch, so each is imported when it is first used."""


class Criteria(Mapping[str, Criterion]):
    """What the knob `prune.criterion` may name.

    Args:
        own: Criteria besides the built-in ones, by name; they must be picklable, since workers get them.

    Attributes:
        own: Those besides the built-in ones.

    Raises:
        ConfigError: A name is a built-in criterion's.
    """

    def __init__(self, own: Mapping[str, Criterion] = MappingProxyType({})) -> None:
        if taken := next((name for name in own if name in BUILT_IN), None):
            raise ConfigError(f"criterion.{taken}: a built-in criterion has this name; choose another one")
        self.own = dict(own)

    def __getitem__(self, name: str) -> Criterion:
        if name in self.own:
            return self.own[name]
        module, _, kind = BUILT_IN[name].partition(":")
        made: Criterion = getattr(import_module(module), kind)()
        return made

    def __iter__(self) -> Iterator[str]:
        return iter((*BUILT_IN, *self.own))

    def __len__(self) -> int:
        return len(BUILT_IN) + len(self.own)

    def digest(self, name: str) -> str:
        """Returns a digest of a criterion's code and configuration: its scores are kept under it.

        It is the name of a built-in one, whose code is part of the cache's own prefix.
        """
        if name not in self.own:
            return name
        criterion = self.own[name]
        return digest_of(name, code_digest(type(criterion)), sorted(criterion.config().items()))

    def own_digests(self) -> dict[str, str]:
        """Returns the digests of the criteria that are not built in, by name."""
        return {name: self.digest(name) for name in self.own}
