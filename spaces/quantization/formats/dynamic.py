"""Dynamic quantization: uint8 weights, and activations that are quantized to uint8 while the network runs.

No calibration: the range of every activation is that of the batch at hand. Through onnxruntime's quantizer; its ConvInteger and
MatMulInteger kernels take uint8.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

from spaces.errors import StageError
from spaces.models.layers import QUANTIZABLE, layers, recurrent_layers

if TYPE_CHECKING:
    import onnx


def to_dynamic_uint8(proto: "onnx.ModelProto", keep_float: Collection[str] = ()) -> "onnx.ModelProto":
    """Returns a float model with dynamically quantized Conv, Gemm, MatMul and LSTM layers.

    Args:
        proto: A checked float32 model.
        keep_float: Layers, by the names of their weights, that stay float.

    Raises:
        StageError: The model cannot be quantized.
    """
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
    from onnxruntime.quantization.quant_utils import QuantizationMode, add_infer_metadata

    kept = {node for layer, node in _all_layers(proto) if layer in keep_float}
    chosen = [node for node in dict.fromkeys(node for _, node in _all_layers(proto)) if node not in kept]
    chosen += [f"{node}_MatMul" for node in chosen]  # the tool's names of what it makes of a Gemm
    copied = onnx.shape_inference.infer_shapes(proto)
    _unshare_weights(copied)
    add_infer_metadata(copied)  # otherwise the tool writes the model to disk and infers shapes again
    if not chosen:  # an empty list would mean all
        return proto
    try:
        quantizer = ONNXQuantizer(
            copied,
            per_channel=False,
            reduce_range=False,
            mode=QuantizationMode.IntegerOps,
            static=False,
            weight_qType=QuantType.QUInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=None,
            nodes_to_quantize=chosen,
            nodes_to_exclude=[],
            op_types_to_quantize=[*QUANTIZABLE, "LSTM"],
            extra_options={"MatMulConstBOnly": True},
        )
        quantizer.quantize_model()
    except Exception as error:  # the tool raises errors of any type for graphs that it does not support
        raise StageError(f"onnxruntime's tool cannot quantize this model dynamically: {error}") from error
    made: onnx.ModelProto = quantizer.model.model
    for i in reversed(range(len(made.metadata_props))):
        if made.metadata_props[i].key == "onnx.infer":  # the tool's own entry
            del made.metadata_props[i]
    return made


def _all_layers(proto: "onnx.ModelProto") -> list[tuple[str, str]]:
    """Returns the names of all layers and of their nodes; those of an LSTM are its two weights."""
    recurrent = [layer for layer in recurrent_layers(proto) if layer.op_type == "LSTM"]
    return [(layer.name, layer.node) for layer in (*layers(proto), *recurrent)]


def _unshare_weights(proto: "onnx.ModelProto") -> None:
    """Gives every Gemm a weight of its own, in place: the tool transposes weights as if no other node read them."""
    stored = {i.name: i for i in proto.graph.initializer}
    for node in proto.graph.node:
        readers = (
            sum(list(other.input).count(node.input[1]) for other in proto.graph.node)
            if node.op_type == "Gemm"
            else 1
        )
        if readers > 1 and node.input[1] in stored:
            copied = proto.graph.initializer.add()
            copied.CopyFrom(stored[node.input[1]])
            copied.name = node.input[1] = f"{node.input[1]}_of_{node.name}"
