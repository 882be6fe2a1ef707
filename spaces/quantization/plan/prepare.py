"""Brings a float model into the form that onnxruntime's quantization tools handle correctly."""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from spaces.errors import StageError
from spaces.models.layers import QUANTIZABLE, layers
from spaces.models.onnx.subgraphs import expose_subgraph_readers
from spaces.models.onnx.value_types import add_missing_types
from spaces.quantization.formats.stored import without_records
from spaces.stages.artifact import Artifact

if TYPE_CHECKING:
    import onnx

OLDEST_OPSET = 13  # the first with per-channel scales


def prepared(artifact: Artifact) -> "onnx.ModelProto":
    """Parses a float model, applies graph fix-ups, and infers shapes; what its metadata says of weights is left out.

    Raises:
        InputError: The artifact is not an ONNX model.
        StageError: The model is quantized already, or its opset is too old to be converted.
    """
    proto = artifact.proto()
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in proto.graph.node):
        raise StageError("the model is quantized already: quantize needs the float model")
    without_records(proto)
    _name_nodes(proto)
    expose_subgraph_readers(proto.graph)
    _split_biases(proto)
    _split_weights(proto)
    _fold_gemm_factors(proto)
    return with_opset(proto, OLDEST_OPSET)


def with_opset(proto: "onnx.ModelProto", opset: int) -> "onnx.ModelProto":
    """Returns the model with shapes inferred, converted to `opset` if it is older.

    Raises:
        StageError: The converter cannot do it.
    """
    import onnx
    from onnx import shape_inference, version_converter

    have = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    if have < opset:
        try:
            proto = version_converter.convert_version(proto, opset)
        except Exception as error:  # the converter raises any exception of its C++ core
            raise StageError(
                f"the model has ONNX opset {have} and cannot be converted to {opset}, which is needed here: {error}"
            ) from error
        proto.ir_version = max(proto.ir_version, onnx.helper.find_min_ir_version_for(proto.opset_import))
        _name_nodes(proto)
    proto = shape_inference.infer_shapes(proto)
    add_missing_types(proto)
    return proto


def _name_nodes(proto: "onnx.ModelProto") -> None:
    taken: set[str] = set()
    for i, node in enumerate(proto.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{i}"
        taken.add(node.name)


def _split_biases(proto: "onnx.ModelProto") -> None:
    """Copies biases that others read, too: the scale of a quantized bias depends on its layer's input."""
    found = {i.name: i for i in proto.graph.initializer}
    taken = {
        tensor
        for node in proto.graph.node
        for position, tensor in enumerate(node.input)
        if node.op_type not in QUANTIZABLE or position != 2
    }
    for node in proto.graph.node:
        if node.op_type not in QUANTIZABLE or len(node.input) < 3 or node.input[2] not in found:
            continue
        name = node.input[2]
        if name in taken:
            node.input[2] = _copied(proto, found[name], node.name)
        taken.add(name)


def _split_weights(proto: "onnx.ModelProto") -> None:
    """Copies a weight that layers read along different axes (once transposed): its scales have one axis."""
    found = {i.name: i for i in proto.graph.initializer}
    nodes = {node.name: node for node in proto.graph.node}
    names: dict[str, dict[int, str]] = {}
    for layer in layers(proto):
        by_axis = names.setdefault(layer.name, {layer.weight_axis_out: layer.name})
        if layer.weight_axis_out not in by_axis:
            by_axis[layer.weight_axis_out] = _copied(proto, found[layer.name], layer.node)
        nodes[layer.node].input[1] = by_axis[layer.weight_axis_out]


def _copied(proto: "onnx.ModelProto", initializer: "onnx.TensorProto", node: str) -> str:
    """Adds a copy of an initializer for a node of this name, and returns the copy's name."""
    copy = proto.graph.initializer.add()
    copy.CopyFrom(initializer)
    copy.name = f"{initializer.name}_of_{node}"
    return str(copy.name)


def _fold_gemm_factors(proto: "onnx.ModelProto") -> None:
    """Folds Gemm's `alpha` and `beta` into weight and bias: the tool's bias scale is wrong with them."""
    from onnx import numpy_helper

    found = {i.name: i for i in proto.graph.initializer}
    readers = Counter(tensor for node in proto.graph.node for tensor in node.input)
    for node in proto.graph.node:
        if node.op_type != "Gemm":
            continue
        for position, attribute in ((1, "alpha"), (2, "beta")):
            factor = next((a for a in node.attribute if a.name == attribute), None)
            name = node.input[position] if len(node.input) > position else ""
            if factor is None or name not in found or readers[name] > 1:
                continue
            scaled = (numpy_helper.to_array(found[name]) * np.float32(factor.f)).astype(np.float32)
            found[name].CopyFrom(numpy_helper.from_array(scaled, name))
            node.attribute.remove(factor)
