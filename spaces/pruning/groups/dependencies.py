"""Which channels of which layers can only be cut together.

Channels are coupled along the edges of torch-pruning's graph (mended where it miscounts), and by rules of our own where it has
none: grouped convolutions, and modules that are a `ChannelMap`.
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
        members: By end, which of its channels, ascending.
        is_output: Whether the network's outputs are among them.
    """

    members: dict[End, tuple[int, ...]]
    is_output: bool


@dataclass(frozen=True)
class Dependencies:
    """All couplings of a network.

    Attributes:
        dependent: Each set of coupled channels.
        pass_throughs: By name, how many channels go into a `ChannelMap`, and how many come out.
        parameter_axes: By name of a parameter that belongs to no known module, the axis that its channels lie on.
    """

    dependent: tuple[Dependent, ...]
    pass_throughs: dict[str, tuple[int, int]]
    parameter_axes: dict[str, int]


def dependencies(module: nn.Module, input_shape: tuple[int, ...]) -> Dependencies:
    """Returns what is coupled in a network, which stays as it is.

    Raises:
        StageError: torch-pruning cannot trace it.
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
    """What torch-pruning's index mappings take and return."""

    idx: int
    root_idx: int


class _Walk:
    """Numbers every channel at either side of every node, and notes which pairs are coupled."""

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
        """Yields the sets of coupled channels that have a layer or a parameter among them."""
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
        for label, found in members.items():
            yield Dependent({end: tuple(sorted(some)) for end, some in found.items()}, label in outputs)

    def _reach(self, node: Node, side: Side, indices: Iterable[int]) -> None:
        new = [i for i in dict.fromkeys(indices) if (node, side, i) not in self._ids]
        for index in new:
            self._ids[node, side, index] = len(self._ids)
        if new:
            self._waiting.append((node, side, new))

    def _expand(self, node: Node, side: Side, indices: Sequence[int]) -> None:
        """Follows channels to the neighbours on their side, and through the node to the other side."""
        # torch-pruning lists a node's edges to its inputs first, then those to its outputs.
        n_inputs = len(node.inputs)
        edges = node.dependencies[:n_inputs] if side == "in" else node.dependencies[n_inputs:]
        for edge in edges:
            self._depend(node, side, edge.target, "out" if side == "in" else "in", _mapped(edge, indices))
        other: Side = "out" if side == "in" else "in"
        self._depend(node, side, node, other, self._through(node, side, indices))
        self._depend(node, side, node, side, _beside(node.module, side, indices))

    def _depend(
        self, node: Node, side: Side, target: Node, other: Side, pairs: Sequence[tuple[int, int]]
    ) -> None:
        self._reach(target, other, (there for _, there in pairs))
        ids = self._ids
        self._pairs += [(ids[node, side, here], ids[target, other, there]) for here, there in pairs]

    def _through(self, node: Node, side: Side, indices: Sequence[int]) -> Sequence[tuple[int, int]]:
        """Returns the channels on a node's other side that are coupled with these."""
        module = node.module
        if isinstance(module, _ConvNd):
            return _depthwise(module, side, indices)
        if module in self._traced.pass_throughs:
            ways = list(
                enumerate(cast(ChannelMap, module).channel_map(self._traced.pass_throughs[module][0]))
            )
            wanted, at = set(indices), 0 if side == "in" else 1
            return [(way[at], way[1 - at]) for way in ways if way[at] in wanted]
        pruner = self._traced.graph.get_pruner_of_module(module)
        # torch-pruning's own sign that a module's outputs are its inputs' channels
        passes = pruner.prune_out_channels == pruner.prune_in_channels
        return [(i, i) for i in indices] if passes else ()


def _n_outputs(layer: _ConvNd | nn.Linear) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _mapped(edge: Any, indices: Sequence[int]) -> list[tuple[int, int]]:
    """Returns what the channels are called at the other end of an edge."""
    mapped: list[Any] = [_Index(i, i) for i in indices]
    for mapping in edge.index_mapping:
        if mapping is not None:
            mapped = mapping(mapped)
    return [(m.root_idx, m.idx) for m in mapped if m.root_idx is not None]


def _depthwise(layer: _ConvNd, side: Side, indices: Sequence[int]) -> list[tuple[int, int]]:
    """Where each input channel has outputs of its own, these go with it."""
    if layer.groups == 1 or layer.groups != layer.in_channels:
        return []
    k = layer.out_channels // layer.groups
    if side == "in":
        return [(i, i * k + j) for i in indices for j in range(k)]
    return [(i, i // k) for i in indices]


def _beside(module: Any, side: Side, indices: Sequence[int]) -> list[tuple[int, int]]:
    """In a grouped convolution, each group of channels loses its share: the channels at the same place in all of them."""
    if not isinstance(module, _ConvNd) or module.groups in (1, module.in_channels):
        return []
    width = (module.in_channels if side == "in" else module.out_channels) // module.groups
    same = [[at + group * width for group in range(module.groups)] for at in {i % width for i in indices}]
    return [pair for chain in same for pair in pairwise(chain)]
