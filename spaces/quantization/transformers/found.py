"""The functions of a float graph that have an integer-only form: Softmax, GELU and layer normalization."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from spaces.quantization.transformers.gelu_pattern import gelus
from spaces.quantization.transformers.graph_index import STANDARD, FloatFunction, Index
from spaces.quantization.transformers.layer_norm_pattern import layer_norms

if TYPE_CHECKING:
    import onnx


def float_functions(proto: "onnx.ModelProto") -> tuple[FloatFunction, ...]:
    """Returns the functions of a prepared model's main graph, in topological order.

    GELU and layer normalization are found as one node and as the nodes that exporters write for them.
    """
    index = Index(proto)
    found = (*softmaxes(index), *gelus(index), *layer_norms(index))
    positions = {node.name: i for i, node in enumerate(index.nodes)}
    return tuple(sorted((f for f in found if index.is_float32(f.input)), key=lambda f: positions[f.name]))


def softmaxes(index: Index) -> Iterator[FloatFunction]:
    """Yields the Softmax nodes, with the meaning of opset 13: one axis is normalized."""
    for node in index.nodes:
        if node.op_type == "Softmax" and node.domain in STANDARD:
            axis = next((int(a.i) for a in node.attribute if a.name == "axis"), -1)
            yield FloatFunction("Softmax", (node.name,), (node.name, 0), node.input[0], (axis,))
