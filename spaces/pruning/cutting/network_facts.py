"""What the prune stage has to know of a network; it follows from the network's structure alone, and is found once."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from typing import cast

from torch import nn
from torch.nn.modules.conv import _ConvNd

from spaces.candidate import StageValue
from spaces.digest import digest_of
from spaces.errors import StageError, unknown_name
from spaces.pruning.budgets.arithmetic import CutArithmetic
from spaces.pruning.budgets.budget import Limits
from spaces.pruning.cutting.batch_norm import batch_norms
from spaces.pruning.cutting.block_search import removable_blocks
from spaces.pruning.groups.counts import Counts, layer_counts, total
from spaces.pruning.groups.find import analyse
from spaces.pruning.groups.group import Analysis, Group
from spaces.stages.artifact import Artifact
from spaces.stages.module_identity import identity

MOST_TOLD = 3
MOST_KEPT = 16


class Facts:
    """The facts about one network.

    Args:
        module: The network; stays as it is.
        input_shape: Shape of one example.
    """

    def __init__(self, module: nn.Module, input_shape: tuple[int, ...]) -> None:
        self._module, self._input_shape = module, input_shape

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Weights of all convolutions and linear layers, in the order of the state dict."""
        modules = self._module.named_modules()
        return tuple(f"{name}.weight" for name, part in modules if isinstance(part, _ConvNd | nn.Linear))

    @cached_property
    def analysis(self) -> Analysis:
        """Which channels can be cut. Raises StageError if the network cannot be traced, or nothing can be cut."""
        found = analyse(self._module, self._input_shape)
        if not found.groups:
            reasons = "; ".join(str(left) for left in found.left_alone[:MOST_TOLD]) or "it has no layers"
            raise StageError(f"prune: no channels of {type(self._module).__name__} can be cut: {reasons}")
        return found

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of channels that can be cut, at least one."""
        return self.analysis.groups

    @cached_property
    def arithmetic(self) -> CutArithmetic:
        """What cuts of these groups cost."""
        return CutArithmetic(self._module, self.groups, self._input_shape)

    @cached_property
    def counts(self) -> Counts:
        """What the network costs."""
        return total(layer_counts(self._module, self._input_shape).values())

    @cached_property
    def blocks(self) -> dict[str, tuple[str, ...]]:
        """The blocks that could be left out, with the layers in each."""
        names = removable_blocks(self._module, self._input_shape)
        return {name: tuple(n for n in self.layers if n.startswith(f"{name}.")) for name in names}

    @cached_property
    def has_batch_norm(self) -> bool:
        """Whether there are statistics to re-estimate."""
        return bool(batch_norms(self._module))

    def matching(self, globs: Iterable[str]) -> tuple[str, ...]:
        """Returns the layers that match a pattern, in order.

        Raises:
            StageError: A pattern matches no layer.
        """
        globs = tuple(globs)
        for glob in globs:
            if not any(_matches(name, glob) for name in self.layers):
                raise StageError(unknown_name("layer pattern", glob, self.layers, "prune.protect"))
        return self._named(globs)

    def _named(self, globs: Iterable[str]) -> tuple[str, ...]:
        globs = tuple(globs)
        return tuple(name for name in self.layers if any(_matches(name, glob) for glob in globs))

    def limits(self, values: Mapping[str, StageValue], min_channels: int) -> Limits:
        """Returns what a cut with these values may leave of a layer; a protected one may have gone with its block."""
        protected = set(self._named(cast(tuple[str, ...], values["protect"])))
        whole = frozenset(g.name for g in self.groups if protected & set(g.layers))
        return Limits(min_channels, cast(int, values["round_to"]), whole)

    def ratios(self, ratio: StageValue) -> dict[str, float]:
        """Returns the share that each group loses: the smallest of its layers' shares, so that none loses more than its own."""
        if not isinstance(ratio, dict):
            return {group.name: float(cast(float, ratio)) for group in self.groups}
        shares = {name: float(cast(float, value)) for name, value in ratio.items()}
        return {g.name: min(shares.get(layer, 0.0) for layer in g.layers) for g in self.groups}

    def check_layers(self, ratio: StageValue) -> None:
        """Raises StageError if a ratio is for a layer that is not there."""
        for name in ratio if isinstance(ratio, dict) else ():
            if name not in self.layers:
                raise StageError(unknown_name("layer", name, self.layers, "prune.ratio"))

    def free_blocks(self, protected: Iterable[str]) -> list[str]:
        """Returns the blocks without a protected layer in them, in the order in which they run."""
        whole = set(protected)
        return [name for name, layers in self.blocks.items() if not whole & set(layers)]

    def check_blocks(self, n_blocks: int, protected: Iterable[str]) -> None:
        """Checks that so many blocks could go.

        Raises:
            StageError: There are fewer.
        """
        free = self.free_blocks(protected)
        if n_blocks > len(free):
            raise StageError(
                f"prune.drop_blocks={n_blocks}: {type(self._module).__name__} has {len(free)} blocks that could go"
                f" ({', '.join(free) or 'none'})"
            )


class FactsOf:
    """The facts about the networks that were asked for last; networks of one structure share theirs."""

    def __init__(self) -> None:
        self._found: OrderedDict[str, Facts] = OrderedDict()
        self._asked: tuple[str, tuple[int, ...]] | None = None
        self._key = ""

    def __call__(self, artifact: Artifact) -> Facts:
        """Returns the facts. Raises StageError if this is no torch network."""
        module = artifact.model
        if not isinstance(module, nn.Module):
            raise StageError(f"prune takes a torch network, not an {artifact.kind} model")
        asked = (artifact.digest, artifact.input.shape)
        if asked != self._asked:  # proposals ask for the same network again and again
            self._asked, self._key = (
                asked,
                digest_of(identity(module, with_values=False), artifact.input.shape),
            )
        found = self._found.pop(self._key, None) or Facts(module, artifact.input.shape)
        self._found[self._key] = found
        if len(self._found) > MOST_KEPT:  # each holds a network
            self._found.popitem(last=False)
        return found


def _matches(name: str, glob: str) -> bool:
    return name == glob or fnmatchcase(name, glob)
