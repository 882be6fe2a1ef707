"""Which channels of which layers can only be cut together.

Dependencies follow the edges of torch-pruning's graph (after the fix-ups of `fix_ups`), and rules of our own
where it has none: grouped convolutions, and modules that are a `ChannelMap`.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch_pruning.ops import OPTYPE

from spaces.pruning.groups.channel_map import ChannelMap
from spaces.pruning.groups.fix_ups import fix_up
from spaces.pruning.groups.tracing import Trace, trace

Side = Literal["in", "out"]
Node: TypeAlias = Any  # torch-pruning is untyped


class End(NamedTuple):
    """One side of a module, or a parameter that belongs to no known module (its side is `out`)."""

    name: str
    side: Side


@dataclass(frozen=True)
class Dependent:
    """Channels that can only be cut together.

    Attributes:
        members: Indices of the channels at each end, ascending.
        is_output: Whether outputs of the network are among them.
    """

    members: dict[End, tuple[int, ...]]
    is_output: bool


@dataclass(frozen=True)
class Dependencies:
    """All dependencies between channels of a network.

    Attributes:
        dependent: The sets of channels that can only be cut together.
        pass_throughs: Numbers of input and output channels of each `ChannelMap`, by name.
        parameter_axes: The axis that channels lie on, by name of a parameter that belongs to no known module.
    """

    dependent: tuple[Dependent, ...]
    pass_throughs: dict[str, tuple[int, int]]
    parameter_axes: dict[str, int]


def dependencies(module: nn.Module, input_shape: tuple[int, ...]) -> Dependencies:
    """Returns the dependencies between channels of a network, which is not modified.

    Raises:
        StageError: torch-pruning cannot trace the network.
    """
    module = copy.deepcopy(module)
    traced = trace(module, input_shape)
    names = {part: name for name, part in module.named_modules()}
    names |= {part: name for name, part in module.named_parameters()}
    fix_up(traced.graph.module2node.values())
    walk = _Walk(traced, names)
    parameters = [n for n in traced.graph.module2node.values() if n.type == OPTYPE.PARAMETER]
    return Dependencies(
        tuple(walk.components()),
        {names[part]: widths for part, widths in traced.pass_throughs.items()},
        {names[n.module]: n.pruning_dim % n.module.ndim for n in parameters},
    )


class _Index(NamedTuple):
    """The element type of the lists that torch-pruning's index mappings take and return."""

    idx: int
    root_idx: int


class _Walk:
    """Numbers every channel at either side of every node, and records which pairs depend on each other."""

    def __init__(self, traced: Trace, names: dict[Any, str]) -> None:
        self._traced, self._names = traced, names
        self._ids: dict[tuple[Node, Side, int], int] = {}
        self._pairs: list[tuple[int, int]] = []
        self._waiting: list[tuple[Node, Side, list[int]]] = []
        for node in traced.graph.module2node.values():
            if isinstance(node.module, _ConvNd | nn.Linear):
                self._reach(node, "out", range(_n_outputs(node.module)))
        while self._waiting:
            self._expand(*self._waiting.pop())

    def components(self) -> Iterator[Dependent]:
        """Yields the connected components (dependent channels) that contain a layer or a parameter."""
        ends = np.array(self._pairs or [(0, 0)]).T
        graph = coo_array((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=(len(self._ids),) * 2)
        labels = connected_components(graph, directed=False)[1] if self._ids else []
        members: dict[int, dict[End, list[int]]] = {}
        outputs = set()
        for (node, side, index), label in zip(self._ids, labels, strict=True):
            if node in self._traced.outputs and side == "out":
                outputs.add(label)
            name = self._names.get(node.module)
            if name is not None:
                members.setdefault(label, {}).setdefault(End(name, side), []).append(index)
        for label, ends_of in members.items():
            yield Dependent({end: tuple(sorted(i)) for end, i in ends_of.items()}, label in outputs)

    def _reach(self, node: Node, side: Side, indices: Iterable[int]) -> None:
        new = [i for i in dict.fromkeys(indices) if (node, side, i) not in self._ids]
        for index in new:
            self._ids[node, side, index] = len(self._ids)
        if new:
            self._waiting.append((node, side, new))

    def _expand(self, node: Node, side: Side, indices: Sequence[int]) -> None:
        """Follows channels to neighbouring nodes on their side, and through the node to its other side."""
        # torch-pruning lists a node's edges to its inputs first, then those to its outputs.
        n_inputs = len(node.inputs)
        edges = node.dependencies[:n_inputs] if side == "in" else node.dependencies[n_inputs:]
        for edge in edges:
            self._depend(node, side, edge.target, "out" if side == "in" else "in", _mapped(edge, indices))
        other: Side = "out" if side == "in" else "in"
        self._depend(node, side, node, other, self._through(node, side, indices))
        self._depend(node, side, node, side, _across_groups(node.module, side, indices))

    def _depend(
        self, node: Node, side: Side, target: Node, other: Side, pairs: Sequence[tuple[int, int]]
    ) -> None:
        self._reach(target, other, (there for _, there in pairs))
        ids = self._ids
        self._pairs += [(ids[node, side, here], ids[target, other, there]) for here, there in pairs]

    def _through(self, node: Node, side: Side, indices: Sequence[int]) -> Sequence[tuple[int, int]]:
        """Returns pairs of these channels and the ones on the node's other side that depend on them."""
        module = node.module
        if isinstance(module, _ConvNd):
            return _depthwise(module, side, indices)
        if module in self._traced.pass_throughs:
            pairs = list(
                enumerate(cast(ChannelMap, module).channel_map(self._traced.pass_throughs[module][0]))
            )
            wanted, at = set(indices), 0 if side == "in" else 1
            return [(pair[at], pair[1 - at]) for pair in pairs if pair[at] in wanted]
        pruner = self._traced.graph.get_pruner_of_module(module)
        # torch-pruning prunes both sides by one function where output channels are the input channels
        passes = pruner.prune_out_channels == pruner.prune_in_channels
        return [(i, i) for i in indices] if passes else ()


def _n_outputs(layer: _ConvNd | nn.Linear) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _mapped(edge: Any, indices: Sequence[int]) -> list[tuple[int, int]]:
    """Returns pairs of a channel's index at this end of an edge and at the other end."""
    mapped: list[Any] = [_Index(i, i) for i in indices]
    for mapping in edge.index_mapping:
        if mapping is not None:
            mapped = mapping(mapped)
    return [(m.root_idx, m.idx) for m in mapped if m.root_idx is not None]


def _depthwise(layer: _ConvNd, side: Side, indices: Sequence[int]) -> list[tuple[int, int]]:
    """Returns pairs of channels on this and the other side of a convolution; none unless depthwise."""
    if layer.groups == 1 or layer.groups != layer.in_channels:
        return []
    k = layer.out_channels // layer.groups
    if side == "in":
        return [(i, i * k + j) for i in indices for j in range(k)]
    return [(i, i // k) for i in indices]


def _across_groups(module: Any, side: Side, indices: Sequence[int]) -> list[tuple[int, int]]:
    """Returns pairs of channels at the same position in different groups of a grouped convolution.

    They depend on each other, so that all groups keep the same width.
    """
    if not isinstance(module, _ConvNd) or module.groups in (1, module.in_channels):
        return []
    width = (module.in_channels if side == "in" else module.out_channels) // module.groups
    same = [[at + group * width for group in range(module.groups)] for at in {i % width for i in indices}]
    return [pair for chain in same for pair in pairwise(chain)]
