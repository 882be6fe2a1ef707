"""Graph fix-ups where torch-pruning miscounts channels: at a flatten, and a concatenation before one."""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import prod
from typing import Any, TypeAlias

from torch import nn
from torch_pruning.ops import OPTYPE

Node: TypeAlias = Any  # torch-pruning is untyped


def fix_up(nodes: Iterable[Node]) -> None:
    """Sets the index mappings of flattens whose sizes are known, and of concatenations that have none.

    Args:
        nodes: All nodes of a dependency graph.
    """
    for node in nodes:
        if node.type == OPTYPE.RESHAPE:
            _fix_up_flatten(node)
        elif node.type == OPTYPE.CONCAT and node.module.offsets is None:
            _fix_up_concatenation(node)


class _Flattening:
    """Index mapping of a flatten: each channel becomes `stride` features."""

    def __init__(self, stride: int, reverse: bool) -> None:
        self._stride, self._reverse = stride, reverse

    def __call__(self, indices: Sequence[Any]) -> list[Any]:
        if self._reverse:
            return [i._replace(idx=i.idx // self._stride) for i in indices]
        return [i._replace(idx=i.idx * self._stride + j) for i in indices for j in range(self._stride)]


class _Offset:
    """Index mapping of one input of a concatenation: its channels follow those of the inputs before it."""

    def __init__(self, first: int, n: int, reverse: bool) -> None:
        self._first, self._n, self._reverse = first, n, reverse

    def __call__(self, indices: Sequence[Any]) -> list[Any]:
        if self._reverse:
            mine = (i for i in indices if self._first <= i.idx < self._first + self._n)
            return [i._replace(idx=i.idx - self._first) for i in mine]
        return [i._replace(idx=i.idx + self._first) for i in indices]


def _fix_up_flatten(node: Node) -> None:
    """Sets the mappings of a flatten. torch-pruning only has one for two spatial axes, by inferred sizes."""
    sizes: tuple[int, ...] = getattr(node.grad_fn, "_saved_self_sym_sizes", ())
    if len(sizes) not in (3, 4, 5) or _features_behind(node) != prod(sizes[1:]):
        return
    stride = prod(sizes[2:])
    for at, source in enumerate(node.inputs):
        node.dependencies[at].index_mapping[0] = _Flattening(stride, True)
        for edge in _edges(source, node):
            edge.index_mapping[0] = _Flattening(stride, False)


def _fix_up_concatenation(node: Node) -> None:
    """Sets the mappings of a concatenation before a flatten.

    torch-pruning compares its size with the number of features after the flatten, and sets none because they
    differ.
    """
    widths = node.module.concat_sizes
    if getattr(node.grad_fn, "_saved_dim", None) != 1 or not widths or None in widths:
        return
    starts = [0, *accumulate(widths)]
    n_uses: dict[int, int] = {}
    for at, source in enumerate(node.inputs):
        node.dependencies[at].index_mapping[1] = _Offset(starts[at], widths[at], True)
        use = n_uses.setdefault(id(source), 0)  # the same input may occur twice
        _edges(source, node)[use].index_mapping[1] = _Offset(starts[at], widths[at], False)
        n_uses[id(source)] += 1


def _edges(source: Node, target: Node) -> list[Any]:
    """Returns the edges from a node to one that takes its output."""
    forward = source.dependencies[len(source.inputs) :]  # edges to the node's inputs come first
    return [edge for edge in forward if edge.target is target]


def _features_behind(node: Node) -> int | None:
    """Returns the inputs of the next linear layer; None unless only element-wise operations precede it."""
    while len(node.outputs) == 1:
        node = node.outputs[0]
        if isinstance(node.module, nn.Linear):
            return node.module.in_features
        if node.type != OPTYPE.ELEMENTWISE:
            return None
    return None
