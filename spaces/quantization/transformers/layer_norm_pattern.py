"""Layer normalization in a float graph: one node, or mean, variance, square root, division and what follows them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from spaces.quantization.transformers.graph_index import STANDARD, FloatFunction, Index, position_of

if TYPE_CHECKING:
    import onnx

_EPSILON = 1e-5  # ONNX's default


def layer_norms(index: Index) -> Iterator[FloatFunction]:
    """Yields the layer normalizations of a graph whose axes have known sizes and whose factors and biases are constants."""
    for node in index.nodes:
        if node.domain not in STANDARD:
            continue
        if node.op_type == "LayerNormalization":
            found = _of_node(index, node)
        elif node.op_type in ("Div", "Mul"):
            found = _of_quotient(index, node)
        else:
            continue
        if found:
            yield found


def _of_node(index: Index, node: "onnx.NodeProto") -> FloatFunction | None:
    shape = index.shape(node.input[0])
    first = next((int(a.i) for a in node.attribute if a.name == "axis"), -1)
    epsilon = next((float(a.f) for a in node.attribute if a.name == "epsilon"), _EPSILON)
    parameters = [name for name in node.input[1:] if name]
    if shape is None or any(node.output[1:]) or any(index.constant(name) is None for name in parameters):
        return None
    axes = tuple(range(first % len(shape) - len(shape), 0))
    size = _size(shape, axes)
    weight, bias = [*parameters, None][:2]
    made = FloatFunction(
        "LayerNormalization", (node.name,), (node.name, 0), node.input[0], axes, size, epsilon, weight, bias
    )
    return made if size else None


def _of_quotient(index: Index, node: "onnx.NodeProto") -> FloatFunction | None:
    """Returns the function of `(x - mean) / sqrt(variance + epsilon)`, a Div or a Mul by the reciprocal, and of what scales it."""
    for difference, divisor in _operands(index, node):
        found = _difference(index, difference)
        spread = None if found is None else _spread(index, divisor[0], found[1])
        if found is None or spread is None:
            continue
        x, axes, nodes = found
        squared, epsilon, more = spread
        other = _difference(index, squared)
        shape = index.shape(x)
        if other is None or other[:2] != (x, axes) or shape is None:
            continue
        axes = tuple(axis % len(shape) - len(shape) for axis in axes)
        scaled, weight = _followed(index, node, "Mul", len(shape))
        last, bias = _followed(index, scaled, "Add", len(shape))
        inside = index.in_order((*nodes, *other[2], *more, *divisor, node, scaled, last))
        size = _size(shape, axes)
        if not size or not index.is_closed(inside, last.output[0]):
            continue
        reader = next(n for n in inside if x in n.input)
        place = (reader.name, position_of(reader, x))
        names = tuple(n.name for n in inside)
        return FloatFunction("LayerNormalization", names, place, x, axes, size, epsilon, weight, bias)
    return None


def _size(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    return int(np.prod([shape[axis] for axis in axes], dtype=np.int64))


def _operands(index: Index, node: "onnx.NodeProto") -> Iterator[tuple[str, list["onnx.NodeProto"]]]:
    """Yields the possible dividends of a node, each with the nodes of the divisor, of which the first is a Sqrt."""
    if node.op_type == "Div" and (root := index.made_by(node.input[1], "Sqrt")):
        yield node.input[0], [root]
    if node.op_type == "Mul":
        for one, other in (node.input, reversed(node.input)):
            inverse = index.made_by(other, "Reciprocal")
            if inverse is not None and (root := index.made_by(inverse.input[0], "Sqrt")):
                yield one, [root, inverse]


def _difference(
    index: Index, name: str
) -> "tuple[str, tuple[int, ...], tuple[onnx.NodeProto, onnx.NodeProto]] | None":
    """Returns `x`, the axes of its mean and the nodes, if a tensor is `x - mean(x)`."""
    node = index.made_by(name, "Sub")
    mean = None if node is None else index.made_by(node.input[1], "ReduceMean")
    if node is None or mean is None or mean.input[0] != node.input[0]:
        return None
    axes = _axes(index, mean)
    return None if axes is None else (node.input[0], axes, (mean, node))


def _axes(index: Index, node: "onnx.NodeProto") -> tuple[int, ...] | None:
    """Returns the axes of a mean that keeps them; None for others."""
    if any(a.name == "keepdims" and not a.i for a in node.attribute):
        return None
    if len(node.input) > 1 and node.input[1]:
        values = index.constant(node.input[1])
        return None if values is None else tuple(int(axis) for axis in values.ravel().astype(np.int64))
    return next((tuple(a.ints) for a in node.attribute if a.name == "axes"), None)


def _spread(
    index: Index, root: "onnx.NodeProto", axes: tuple[int, ...]
) -> "tuple[str, float, tuple[onnx.NodeProto, ...]] | None":
    """Returns the tensor that is squared, epsilon and the nodes, if a Sqrt is of a mean of squares over these axes and a constant."""
    added = index.made_by(root.input[0], "Add")
    for one, other in () if added is None else (added.input, reversed(added.input)):
        epsilon, mean = index.number(other), index.made_by(one, "ReduceMean")
        square = None if mean is None else index.made_by(mean.input[0], "Pow", "Mul")
        if epsilon is None or mean is None or square is None or _axes(index, mean) != axes:
            continue
        first, second = square.input
        if first == second if square.op_type == "Mul" else index.number(second) == 2:
            assert added is not None
            return first, epsilon, (square, mean, added)
    return None


def _followed(
    index: Index, node: "onnx.NodeProto", operator: str, n_axes: int
) -> "tuple[onnx.NodeProto, str | None]":
    """Returns the node that scales or shifts a node's result by a constant, and the constant; the node itself without one."""
    reader = index.only_reader(node.output[0])
    if reader is None or reader.op_type != operator or reader.domain not in STANDARD:
        return node, None
    for name in reader.input:
        values = index.constant(name)
        if values is not None and values.ndim <= n_axes:
            return reader, str(name)
    return node, None
