"""GELU in a float graph: one node, or the elementwise nodes around an Erf or Tanh that compute it.

There are many ways to write `x / 2 (1 + erf(x / sqrt 2))`, so nodes are recognised by their values: a part of the graph that depends
on one tensor alone, through elementwise operators and constants, is a GELU if it equals one on a grid.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaces.quantization.transformers.graph_index import STANDARD, FloatFunction, Index, position_of

if TYPE_CHECKING:
    import onnx

Floats = NDArray[np.float64]

_GRID: Floats = np.linspace(-8, 8, 257)
_ERROR = 1e-4  # constants of exporters have five digits or more
_MOST_STEPS = 8  # nodes on a way from the input to Erf or Tanh, and on to the output


def _erf(x: Floats) -> Floats:
    return np.vectorize(math.erf, otypes=[np.float64])(x)  # type: ignore[no-any-return]


_OPERATORS: Mapping[str, Callable[..., Floats]] = MappingProxyType(
    {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power}
    | {"Neg": np.negative, "Tanh": np.tanh, "Erf": _erf}
)
_FORMS = (
    _GRID / 2 * (1 + _erf(_GRID / math.sqrt(2))),
    _GRID / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (_GRID + 0.044715 * _GRID**3))),
)


class _OtherInputError(Exception):
    """A part of the graph depends on more than one tensor."""


def gelus(index: Index) -> Iterator[FloatFunction]:
    """Yields the GELUs of a graph."""
    for node in index.nodes:
        if node.domain not in STANDARD:
            continue
        if node.op_type == "Gelu":
            yield FloatFunction("Gelu", (node.name,), (node.name, 0), node.input[0])
        elif node.op_type in ("Erf", "Tanh") and (found := _around(index, node)):
            yield found


def _around(index: Index, node: "onnx.NodeProto") -> FloatFunction | None:
    outputs = list(_outputs(index, node))
    for x in _sources(index, node):
        for output in outputs:
            nodes: dict[str, onnx.NodeProto] = {}
            try:
                values = _values(index, output, x, nodes)
            except _OtherInputError:
                continue
            equal = any(np.allclose(values, form, atol=_ERROR) for form in _FORMS)
            if equal and index.is_closed(nodes.values(), output):
                ordered = index.in_order(nodes.values())
                reader = next(n for n in ordered if x in n.input)
                names = tuple(n.name for n in ordered)
                return FloatFunction("Gelu", names, (reader.name, position_of(reader, x)), x)
    return None


def _outputs(index: Index, node: "onnx.NodeProto") -> Iterator[str]:
    """Yields the tensors after a node, as long as one elementwise node alone reads them."""
    for _ in range(_MOST_STEPS):
        reader = index.only_reader(node.output[0])
        if reader is None or reader.op_type not in _OPERATORS or reader.domain not in STANDARD:
            return
        node = reader
        yield node.output[0]


def _sources(index: Index, node: "onnx.NodeProto") -> list[str]:
    """Returns the tensors before a node, through elementwise nodes, the nearest first."""
    found, level = dict[str, None](), [node]
    for _ in range(_MOST_STEPS):
        names = [name for n in level for name in n.input if index.number(name) is None]
        found |= dict.fromkeys(names)
        level = [made for name in names if (made := index.made_by(name, *_OPERATORS))]
    return list(found)


def _values(index: Index, name: str, x: str, nodes: "dict[str, onnx.NodeProto]") -> Floats:
    """Returns a tensor's values if `x` is the grid; the nodes that compute it are added to `nodes`.

    Raises:
        _OtherInputError: It depends on another tensor.
    """
    if name == x:
        return _GRID
    number = index.number(name)
    if number is not None:
        return np.full_like(_GRID, number)
    node = index.made_by(name, *_OPERATORS)
    if node is None or len(nodes) > 4 * _MOST_STEPS:
        raise _OtherInputError
    nodes[node.output[0]] = node
    operands = [_values(index, operand, x, nodes) for operand in node.input]
    with np.errstate(all="ignore"):
        return _OPERATORS[node.op_type](*operands)
