"""Shapes of a kernel that its speed depends on, besides its multiply-accumulates."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluators.cost.graph.operators import operators as ops
from evaluators.cost.graph.operators.nodes import Node
from evaluators.cost.graph.operators.tensors import Tensor
from evaluators.devices.kinds import Kind


@dataclass(frozen=True)
class Geometry:
    """Shapes of a kernel with multiply-accumulates or of a pool.

    For a matrix product `out_size` is `(rows, 1)` and `in_channels` the inner dimension; for a recurrent
    kernel `out_size` is `(steps x examples, 1)`. A single spatial axis is the width; of more than two, all
    but the last are multiplied into the height.

    Attributes:
        in_channels: Input channels.
        out_channels: Output channels.
        window: Window size, (height, width).
        stride: Stride, (height, width).
        groups: Groups of a grouped convolution.
        in_size: Spatial size of the input, (height, width).
        out_size: Spatial size of the output, (height, width).
    """

    in_channels: int
    out_channels: int
    window: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    groups: int = 1
    in_size: tuple[int, int] = (1, 1)
    out_size: tuple[int, int] = (1, 1)


def geometry_of(node: Node, kind: Kind, tensors: Mapping[str, Tensor]) -> Geometry | None:
    """Returns the shapes of the kernel whose first node is `node`; None if its class has none."""
    op = node.op
    if ops.is_convolution(op):
        return _windowed(node, tensors, ops.window_of(node, tensors), node.integer("group", 1))
    if ops.is_product(op):
        return _product(node, tensors)
    if kind == "recurrent":
        return _recurrent(node, tensors)
    return _pool(node, tensors) if kind == "pool" else None


def pair(sizes: Sequence[int]) -> tuple[int, int]:
    """Returns (height, width) for the sizes of any number of spatial axes; an absent axis has size 1."""
    return (math.prod(sizes[:-1]), sizes[-1]) if sizes else (1, 1)


def _spatial(node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:-1] if ops.is_channels_last(node) else shape[2:]


def _windowed(node: Node, tensors: Mapping[str, Tensor], window: tuple[int, ...], groups: int) -> Geometry:
    read, written = tensors[ops.operands(node)[0]].shape, tensors[node.outputs[0]].shape
    channels = -1 if ops.is_channels_last(node) else 1
    return Geometry(
        read[channels],
        written[channels],
        pair(window),
        pair(node.integers("strides")),
        groups,
        pair(_spatial(node, read)),
        pair(_spatial(node, written)),
    )


def _product(node: Node, tensors: Mapping[str, Tensor]) -> Geometry:
    written = tensors[node.outputs[0]].shape
    columns = written[-1] if written else 1
    rows = (math.prod(written) // max(columns, 1), 1)
    return Geometry(ops.inner_size(node, tensors), columns, in_size=rows, out_size=rows)


def _recurrent(node: Node, tensors: Mapping[str, Tensor]) -> Geometry:
    read = tensors[node.inputs[0]].shape
    hidden = node.integer("hidden_size", tensors[node.inputs[2]].shape[-1])
    steps = (math.prod(read[:-1]), 1)
    directions = tensors[node.inputs[1]].shape[0]
    return Geometry(read[-1], directions * hidden, in_size=steps, out_size=steps)


def _pool(node: Node, tensors: Mapping[str, Tensor]) -> Geometry | None:
    """Returns the shapes of a pool; a reduction counts as a pool whose window is all reduced elements."""
    read, written = tensors[node.inputs[0]].shape, tensors[node.outputs[0]].shape
    if "Pool" not in node.op:
        n_kept = math.prod(written)
        window = (1, math.prod(read) // max(n_kept, 1))
        return Geometry(n_kept, n_kept, window, window, n_kept, window)
    if len(read) < 3:
        return None
    whole = _spatial(node, read)
    window_or_all = node.integers("kernel_shape") or whole
    channels = read[-1 if ops.is_channels_last(node) else 1]
    return _windowed(node, tensors, window_or_all, channels)
