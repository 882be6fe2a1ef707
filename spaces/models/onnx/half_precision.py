"""Converts float16 and bfloat16 models to float32, in which everything else computes."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

# Attributes whose value is an element type.
_TYPES = ("to", "dtype", "output_dtype", "stash_type", "softmax_precision")


def without_half_precision(proto: "onnx.ModelProto") -> "onnx.ModelProto":
    """Returns the model with float32 in place of every float16 and bfloat16; the same model without any.

    Both types are subsets of float32, so that the weights keep their values; the activations are no longer
    rounded to them. A Cast that has nothing left to do becomes an Identity.

    Args:
        proto: A checked ONNX model.
    """
    import onnx

    converted = onnx.ModelProto()
    converted.CopyFrom(proto)
    _convert_graph(converted.graph)
    for function in converted.functions:
        _convert_nodes(function.node)
        _convert_values(function.value_info)
    if (
        converted.SerializeToString() == proto.SerializeToString()
    ):  # messages with NaN are unequal to themselves
        return proto
    converted = onnx.shape_inference.infer_shapes(converted)
    _neutralize_casts(converted.graph)
    return converted


def _halves() -> tuple[int, ...]:
    from onnx import TensorProto

    return (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def _convert_graph(graph: "onnx.GraphProto") -> None:
    for tensor in (*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)):
        _convert_tensor(tensor)
    _convert_values((*graph.input, *graph.output, *graph.value_info))
    _convert_nodes(graph.node)


def _convert_nodes(nodes: Iterable["onnx.NodeProto"]) -> None:
    from onnx import TensorProto

    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in _TYPES and attribute.i in _halves():
                attribute.i = TensorProto.FLOAT
            sparse = (attribute.sparse_tensor, *attribute.sparse_tensors)
            for tensor in (attribute.t, *attribute.tensors, *(s.values for s in sparse)):
                _convert_tensor(tensor)
            for graph in (attribute.g, *attribute.graphs):
                _convert_graph(graph)


def _convert_tensor(tensor: "onnx.TensorProto") -> None:
    from onnx import numpy_helper

    if tensor.data_type in _halves():
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _convert_values(values: Iterable["onnx.ValueInfoProto"]) -> None:
    for value in values:
        _convert_type(value.type)


def _convert_type(kind: "onnx.TypeProto") -> None:
    from onnx import TensorProto

    which = kind.WhichOneof("value")
    if which in ("sequence_type", "optional_type"):
        _convert_type(getattr(kind, which).elem_type)
    elif which == "tensor_type" and kind.tensor_type.elem_type in _halves():
        kind.tensor_type.elem_type = TensorProto.FLOAT


def _neutralize_casts(graph: "onnx.GraphProto") -> None:
    """Turns, in place, each Cast to the type that its input has already into an Identity."""
    types = {i.name: i.data_type for i in graph.initializer}
    types |= {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info)}
    for node in graph.node:
        to = next((a.i for a in node.attribute if a.name == "to"), None)
        if node.op_type == "Cast" and node.domain in ("", "ai.onnx") and types.get(node.input[0]) == to:
            node.op_type = "Identity"
            del node.attribute[:]
