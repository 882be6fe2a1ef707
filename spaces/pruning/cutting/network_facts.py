"""Structural properties of a network (groups, costs, blocks), computed once per structure."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from typing import cast

from torch import nn

from spaces.candidate import StageValue
from spaces.digest import digest_of
from spaces.errors import StageError, unknown_name
from spaces.pruning.budgets.arithmetic import CutArithmetic
from spaces.pruning.budgets.budget import Limits
from spaces.pruning.cutting.batch_norm import batch_norms
from spaces.pruning.cutting.block_search import removable_blocks
from spaces.pruning.groups.counts import Counts, layer_counts, total, weight_uses
from spaces.pruning.groups.find import analyse
from spaces.pruning.groups.group import Analysis, Group
from spaces.pruning.groups.residual import added_layers
from spaces.pruning.groups.weights import layer_weights, weight_name
from spaces.stages.artifact import Artifact
from spaces.stages.module_identity import identity

MOST_REASONS = 3  # in an error message
MOST_KEPT = 16  # networks whose properties are kept


class NetworkFacts:
    """The structural properties of one network, each computed on first use.

    Args:
        module: The network; stays as it is.
        input_shape: Shape of one example.
    """

    def __init__(self, module: nn.Module, input_shape: tuple[int, ...]) -> None:
        self._module, self._input_shape = module, input_shape

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Weights of all layers, and other parameters that a product multiplies with, in the order of the state dict."""
        found, modules = layer_weights(self._module), dict(self._module.named_modules(remove_duplicate=False))
        names = (
            weight_name(modules, name) for name, _ in self._module.named_parameters(remove_duplicate=False)
        )
        used = found.keys() | weight_uses(self._module, self._input_shape).keys()
        return tuple(name for name in dict.fromkeys(names) if name in used)

    @cached_property
    def analysis(self) -> Analysis:
        """The groups that can be cut. Raises StageError if there are none, or tracing fails."""
        analysis = analyse(self._module, self._input_shape)
        if not analysis.groups:
            reasons = (
                "; ".join(str(left) for left in analysis.left_alone[:MOST_REASONS]) or "it has no layers"
            )
            raise StageError(f"prune: no channels of {type(self._module).__name__} can be cut: {reasons}")
        return analysis

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of channels that can be cut, at least one."""
        return self.analysis.groups

    def require_groups(self) -> None:
        """Raises StageError if no channels can be cut, or tracing fails."""
        _ = self.analysis

    @cached_property
    def arithmetic(self) -> CutArithmetic:
        """The cost of cuts of these groups."""
        return CutArithmetic(self._module, self.groups, self._input_shape)

    @cached_property
    def counts(self) -> Counts:
        """MACs, parameters and bytes of the network."""
        return total(layer_counts(self._module, self._input_shape).values())

    @cached_property
    def blocks(self) -> dict[str, tuple[str, ...]]:
        """The blocks that can be removed, by name, with the layers in each."""
        names = removable_blocks(self._module, self._input_shape)
        return {name: tuple(n for n in self.layers if n.startswith(f"{name}.")) for name in names}

    @cached_property
    def residuals(self) -> frozenset[str]:
        """The names of the groups whose channels shortcuts or parallel branches add to."""
        added = added_layers(self._module, self._input_shape, self.layers)
        return frozenset(group.name for group in self.groups if added & set(group.layers))

    @cached_property
    def has_batch_norm(self) -> bool:
        """Whether the network has BatchNorm statistics to re-estimate."""
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
        """Returns the limits for a cut. Protected layers may be missing: removed with their block."""
        protected = set(self._named(cast(tuple[str, ...], values["protect"])))
        whole = frozenset(g.name for g in self.groups if protected & set(g.layers))
        return Limits(min_channels, cast(int, values["round_to"]), whole)

    def ratios(self, ratio: StageValue) -> dict[str, float]:
        """Returns the share of channels that each group loses: the smallest ratio among its layers."""
        if not isinstance(ratio, dict):
            return {group.name: float(cast(float, ratio)) for group in self.groups}
        shares = {name: float(cast(float, value)) for name, value in ratio.items()}
        return {g.name: min(shares.get(layer, 0.0) for layer in g.layers) for g in self.groups}

    def check_layers(self, ratio: StageValue) -> None:
        """Raises StageError if a ratio names a layer that the network does not have."""
        for name in ratio if isinstance(ratio, dict) else ():
            if name not in self.layers:
                raise StageError(unknown_name("layer", name, self.layers, "prune.ratio"))

    def free_blocks(self, protected: Iterable[str]) -> list[str]:
        """Returns the removable blocks that contain no protected layer, in execution order."""
        kept = set(protected)
        return [name for name, layers in self.blocks.items() if not kept & set(layers)]

    def check_blocks(self, n_blocks: int, protected: Iterable[str]) -> None:
        """Checks that `n_blocks` blocks can be removed.

        Raises:
            StageError: The network has fewer removable blocks.
        """
        free = self.free_blocks(protected)
        if n_blocks > len(free):
            raise StageError(
                f"prune.drop_blocks={n_blocks}: {type(self._module).__name__} has {len(free)} blocks that could go"
                f" ({', '.join(free) or 'none'})"
            )


class FactsOf:
    """Cache of `Facts` for the most recently used networks; networks of the same structure share an entry."""

    def __init__(self) -> None:
        self._cache: OrderedDict[str, NetworkFacts] = OrderedDict()
        self._last: tuple[str, tuple[int, ...]] | None = None
        self._key = ""

    def __call__(self, artifact: Artifact) -> NetworkFacts:
        """Returns the network's properties. Raises StageError if the artifact is not a torch network."""
        module = artifact.model
        if not isinstance(module, nn.Module):
            raise StageError(f"prune takes a torch network, not an {artifact.kind} model")
        network = (artifact.digest, artifact.input.packed_shape)
        if network != self._last:  # a search asks for the same network repeatedly
            self._last, self._key = (
                network,
                digest_of(identity(module, with_values=False), artifact.input.packed_shape),
            )
        facts = self._cache.pop(self._key, None) or NetworkFacts(module, artifact.input.packed_shape)
        self._cache[self._key] = facts
        if len(self._cache) > MOST_KEPT:  # each holds a network
            self._cache.popitem(last=False)
        return facts


def _matches(name: str, glob: str) -> bool:
    return name == glob or fnmatchcase(name, glob)
