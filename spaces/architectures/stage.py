"""The architecture stage: replaces the network by another one of its family, with random weights."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import islice, product
from math import prod
from typing import Any, ClassVar

import numpy as np

from spaces.architectures.counting import NAMES, Counts
from spaces.architectures.family import Family, checked_values
from spaces.candidate import StageValue, Value
from spaces.code_digest import code_digest
from spaces.digest import digest_of
from spaces.errors import ConfigError, StageError, unknown_name
from spaces.stages.artifact import Artifact, Kind, Step
from spaces.stages.cache import Cache
from spaces.stages.stage import Stage, StageContext

COUNTED = 256  # architectures of a space that are counted to tell which share of it is within the limits
REMEMBERED = 4096  # counts, and 64 networks, that are kept
_NETWORKS = 64


class ArchitectureStage(Stage):
    """Builds a network of a family; its costs are counted before, and what exceeds a limit is never built.

    Args:
        family: The family; its knobs are the stage's.
        n_classes: Number of outputs.
        values: Values of the reference network's knobs that are not the family's defaults: they become the defaults.
        limits: Most `macs`, `parameters` and `peak_activation_bytes` (float32) of a network; none by default.

    Raises:
        ConfigError: A knob is unknown or a value invalid, or a limit has an unknown name or is no positive number.
    """

    name: ClassVar[str] = "architecture"
    consumes: ClassVar[tuple[Kind, ...]] = ("torch",)
    produces: ClassVar[Kind] = "torch"
    rebuilds: ClassVar[bool] = True

    def __init__(
        self,
        family: Family,
        n_classes: int,
        values: dict[str, Any] | None = None,
        limits: dict[str, Any] | None = None,
    ) -> None:
        self.family, self.n_classes = family, n_classes
        chosen = checked_values(values, family, "model.values")
        self.knobs = tuple(replace(knob, default=chosen[knob.name]) for knob in family.knobs)
        self.limits = {name: _limit(name, most) for name, most in (limits or {}).items()}

    def apply(self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext) -> Artifact:
        """Returns the network with random weights, drawn with the context's seed.

        Raises:
            StageError: The values build no valid network, or one that exceeds a limit.
        """
        chosen = self.canonical(artifact, values, context)
        key = (_key(chosen), artifact.input.shape, context.seed)
        if key not in self._networks:
            self._networks[key] = self._built(artifact, chosen, context)
            if len(self._networks) > _NETWORKS:
                self._networks.pop(next(iter(self._networks)))
        made = self._networks[key]
        return replace(
            made,
            provenance=(*artifact.provenance, Step.of(self.name, chosen)),
            notes={**artifact.notes, **made.notes},
        )

    def canonical(
        self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext
    ) -> dict[str, StageValue]:
        """Returns the values, with the default for knobs that have no effect at these values.

        Raises:
            StageError: The values build no valid network, or one that exceeds a limit.
        """
        chosen = self.family.canonical({**self.defaults(), **values})
        if (why := self.family.broken(chosen, artifact.input.shape)) is not None:
            raise StageError(f"architecture: {why}")
        if why := self._excess(chosen, artifact, context.cache):
            raise StageError(f"architecture: {why}")
        return chosen

    def check(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> None:
        """Checks that the space has a valid network within the limits.

        Raises:
            StageError: It has none; the message names the nearest one.
        """
        if self._network_counts(artifact, domains, context.cache)[0]:
            return
        self._refuse(artifact, domains, context.cache)

    def remarks(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> tuple[str, ...]:
        """Returns how many architectures the space has, and which share of them is within the limits."""
        fits, valid, tried = self._network_counts(artifact, domains, context.cache)
        size = prod(len(domain) or 1 for domain in domains.values())
        listed = (
            f"of {size:,} architectures" if tried == size else f"of {tried} architectures drawn from {size:,}"
        )
        if fits == tried:
            return ()
        within = " and ".join(f"{name} of at most {most:,}" for name, most in self.limits.items())
        return (
            f"{listed} {valid / tried:.0%} are valid networks"
            + (f", and {fits / tried:.0%} also have {within}" if within else "")
            + "; the others are never built",
        )

    def config(self) -> dict[str, Any]:
        """Returns the family, its settings and the number of outputs: the stage's output depends on them."""
        return {
            "family": self.family.name,
            "code": code_digest(type(self.family)),
            "settings": self.family.settings(),
            "n_classes": self.n_classes,
        }

    # -- costs -------------------------------------------------------------------------------------------------

    def _excess(self, values: Mapping[str, Any], artifact: Artifact, cache: Cache) -> str:
        """Returns which limit a network exceeds and by how much; an empty text if none."""
        if not self.limits:
            return ""
        counts = vars(self._counts(values, artifact, cache))
        name = max(self.limits, key=lambda name: counts[name] / self.limits[name])
        if counts[name] <= self.limits[name]:
            return ""
        return f"the network has {counts[name]:,} {_word(name)}, more than the limit of {self.limits[name]:,}"

    def _counts(self, values: Mapping[str, Any], artifact: Artifact, cache: Cache) -> Counts:
        """Returns a network's costs, which the cache keeps for later studies: a trace takes tens of milliseconds."""
        key = (_key(values), artifact.input.shape)
        if key not in self._counted:
            if len(self._counted) >= REMEMBERED:
                self._counted.clear()
            entry = f"counts-{digest_of(self.config(), *key)}"
            stored = cache.blob(entry, lambda: self._told(values, artifact))
            self._counted[key] = Counts(**json.loads(stored))
        return self._counted[key]

    def _told(self, values: Mapping[str, Any], artifact: Artifact) -> bytes:
        return json.dumps(vars(self.family.counts(values, artifact.input.shape, self.n_classes))).encode()

    def _network_counts(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], cache: Cache
    ) -> tuple[int, int, int]:
        """Returns how many of the space's architectures fit the limits, how many are valid, and how many were tried."""
        fits = valid = tried = 0
        for values in self._some(domains):
            tried += 1
            if self.family.broken(values, artifact.input.shape) is None:
                valid += 1
                fits += not self._excess(values, artifact, cache)
        return fits, valid, tried

    def _some(self, domains: Mapping[str, tuple[Value, ...]]) -> Iterator[dict[str, Any]]:
        """Yields all architectures of a space, or as many random ones as are counted, the same every time."""
        choices = {name: domain or _ends(self, name) for name, domain in domains.items()}
        fixed = self.defaults()
        if prod(map(len, choices.values())) <= COUNTED:
            rows: Iterator[Any] = product(*choices.values())
        else:
            rng = np.random.default_rng(0)
            rows = islice(
                (tuple(c[rng.integers(len(c))] for c in choices.values()) for _ in iter(int, 1)), COUNTED
            )
        for row in rows:
            yield self.family.canonical({**fixed, **dict(zip(choices, row, strict=True))})

    def _refuse(self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], cache: Cache) -> None:
        """Raises StageError that says why no architecture of the space is possible, or returns if a small one is.

        The smallest architectures are looked for from the best of those that were drawn, one knob at a time.
        """
        choices = {name: domain or _ends(self, name) for name, domain in domains.items()}
        valid = [v for v in self._some(domains) if self.family.broken(v, artifact.input.shape) is None]
        if not valid:
            first = next(self._some(domains))
            why = self.family.broken(first, artifact.input.shape)
            raise StageError(f"no combination of the knobs builds a valid network, e.g. {first}: {why}")
        best = min(valid, key=lambda v: self._over(v, artifact, cache))
        while True:
            near = [
                self.family.canonical({**best, name: value}) for name, c in choices.items() for value in c
            ]
            near = [v for v in near if self.family.broken(v, artifact.input.shape) is None]
            step = min(near, key=lambda v: self._over(v, artifact, cache))
            if self._over(step, artifact, cache) >= self._over(best, artifact, cache):
                break
            best = step
        if self._over(best, artifact, cache) > 1:
            counts = vars(self._counts(best, artifact, cache))
            shown = ", ".join(
                f"{counts[name]:,} {_word(name)} (limit {most:,})" for name, most in self.limits.items()
            )
            knobs = ", ".join(f"{name}={best[name]}" for name in domains)
            raise StageError(
                f"no architecture of the space is within stage.architecture.limits; the nearest found ({knobs}) has {shown}"
            )

    def _over(self, values: Mapping[str, Any], artifact: Artifact, cache: Cache) -> float:
        """Returns the largest ratio of a count to its limit."""
        counts = vars(self._counts(values, artifact, cache))
        return float(max(counts[name] / most for name, most in self.limits.items()))

    # -- networks ------------------------------------------------------------------------------------------------

    def _built(self, artifact: Artifact, values: Mapping[str, Any], context: StageContext) -> Artifact:
        import torch

        from spaces.stages.torch_artifact import torch_artifact

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            network = self.family.build(values, artifact.input.shape, self.n_classes)
        made = torch_artifact(network.eval(), artifact.input)
        facts = {**vars(self._counts(values, artifact, context.cache)), "structure": structure_of(made)}
        return replace(made, notes={self.name: facts})

    @cached_property
    def _networks(self) -> dict[Any, Artifact]:
        """Cache of `apply`."""
        return {}

    @cached_property
    def _counted(self) -> dict[Any, Counts]:
        """Cache of `_counts`."""
        return {}


def structure_of(artifact: Artifact) -> str:
    """Returns a digest of a torch network's layers and shapes: equal for networks that differ in weights only."""
    from spaces.stages.module_identity import identity

    assert not isinstance(artifact.model, bytes)
    return digest_of(artifact.input, identity(artifact.model, with_values=False))


def _key(values: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(values.items()))


def _ends(stage: Stage, name: str) -> tuple[Value, ...]:
    """Returns the bounds of a knob whose values are not listed."""
    knob = next(knob for knob in stage.knobs if knob.name == name)
    return tuple(v for v in (knob.low, knob.high) if v is not None) or (knob.default,)


def _word(name: str) -> str:
    return {"macs": "MACs", "peak_activation_bytes": "bytes of live activations"}.get(name, name)


def _limit(name: str, most: Any) -> float:
    if name not in NAMES:
        raise ConfigError(unknown_name("limit", name, NAMES, "stage.architecture.limits"))
    if isinstance(most, bool) or not isinstance(most, int | float) or most <= 0:
        raise ConfigError(f"stage.architecture.limits.{name} must be a number above 0, not {most!r}")
    return most
