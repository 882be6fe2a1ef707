"""The adapter of onnxruntime's quantization tools: from a plan to a quantized ONNX model.

The quantizer classes below `quantize_static` are called with every scale and zero point given: they only
insert, fold and fuse nodes.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from spaces.errors import StageError
from spaces.quantization.plan.network import PASSING, Network
from spaces.quantization.plan.plan import Plan, Settings
from spaces.quantization.plan.prepare import with_opset
from spaces.quantization.qdq.indexed_model import index
from spaces.quantization.qdq.recurrent_weights import store_recurrent_weights
from spaces.quantization.schemes.integers import stored_zero_point
from spaces.quantization.schemes.scheme import Grid, scheme_of

if TYPE_CHECKING:
    import onnx
    from onnxruntime.quantization import QuantType

WHERE, HIDDEN = "Where", "Where_float"
OPSET_OF_ALL_WIDTHS = 21  # the first with 4-bit weights and 16-bit activations


def quantized_model(
    proto: "onnx.ModelProto", network: Network, plan: Plan, settings: Settings
) -> "onnx.ModelProto":
    """Returns the quantized model.

    Args:
        proto: The prepared float model; it is modified.
        network: The model's quantizable nodes and tensors.
        plan: The grid of every tensor.
        settings: The knobs.

    Raises:
        StageError: The model's opset is too old for the widths and cannot be converted, or the tool fails.
    """
    from onnxruntime.quantization.quant_utils import add_infer_metadata

    if _needs_newest(settings):
        proto = with_opset(proto, OPSET_OF_ALL_WIDTHS)
    own = {i.name for i in proto.graph.initializer}
    add_infer_metadata(proto)  # otherwise the tool writes the model to disk and infers shapes again
    if settings.format == "qoperator":
        _rename(proto, WHERE, HIDDEN)
    try:
        quantizer = _quantizer(proto, network, plan, settings)
        quantizer.quantize_model()
    except Exception as error:  # the tool raises errors of any type for graphs that it does not support
        raise StageError(
            f"onnxruntime's tool cannot quantize this model with these values: {error}"
        ) from error
    _rename(quantizer.model.model, HIDDEN, WHERE)
    _float_outputs(quantizer.model.model, network)
    store_recurrent_weights(quantizer.model.model, network, plan, settings)
    quantizer.model.clean_initializers()
    quantizer.model.topological_sort()
    quantized = _without_float_metadata(quantizer.model.model)
    _use_raw_data(quantized, own)
    if _may_be_lowered(settings):
        _lower_opset(quantized)
    return quantized


def reads_shapes(opset: int, settings: Settings) -> bool:
    """Whether `quantized_model` depends on the shapes of weights beyond their numbers of channels."""
    if opset < OPSET_OF_ALL_WIDTHS:
        return _needs_newest(settings)
    return _may_be_lowered(settings)


def _rename(proto: "onnx.ModelProto", old: str, new: str) -> None:
    """Renames an operator, in place.

    With format=qoperator the tool keeps a float Where, but does not dequantize what it reads. It does so for
    operators that it does not know.
    """
    for node in proto.graph.node:
        if node.op_type == old:
            node.op_type = new


def _needs_newest(settings: Settings) -> bool:
    return settings.activation_bits == 16 or any(bits <= 4 for bits in settings.weight_bits.values())


def _may_be_lowered(settings: Settings) -> bool:
    return settings.activation_type == "signed" and settings.activation_bits == 8


def _quantizer(proto: "onnx.ModelProto", network: Network, plan: Plan, settings: Settings) -> Any:
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import QuantizationMode

    arguments: dict[str, Any] = {
        "model": proto,
        "per_channel": settings.per_channel,
        "reduce_range": False,  # the plan's grids are reduced already (`Settings.reduce_range`)
        "weight_qType": quant_type(8, settings.weight_type),
        "activation_qType": quant_type(settings.activation_bits, settings.activation_type),
        "tensors_range": _tensor_data(plan),
        "nodes_to_quantize": [],
        # The tool ignores domains, and would quantize e.g. a Conv of another layout.
        "nodes_to_exclude": [
            *plan.float_nodes,
            *(node.name for node in proto.graph.node if node.domain not in ("", "ai.onnx")),
        ],
        "op_types_to_quantize": ["Conv", "ConvTranspose", "Gemm", "MatMul", *PASSING],
    }
    keeps = scheme_of(settings.scheme).keeps_activations
    options: dict[str, Any] = {"TensorQuantOverrides": _overrides(network, plan, settings)}
    if settings.format == "qdq":
        options |= {
            "QDQKeepRemovableActivations": keeps,
            "QDQDisableWeightAdjustForInt32Bias": True,  # the plan has adjusted the weights' scales
            # The Add after a MatMul is a constant bias and stays float, so the MatMul's output must, too.
            "OpTypesToExcludeOutputQuantization": ["MatMul"],
        }
        quantizer = QDQQuantizer(**arguments, extra_options=options)
        index(quantizer.model)
        return quantizer
    options["ActivationSymmetric"] = keeps  # its only effect here is to keep ReLU and Clip
    # This tool folds a ReLU even where another node reads its input; such a ReLU has to stay float.
    arguments["nodes_to_exclude"] += network.forked
    quantizer = ONNXQuantizer(
        **arguments, mode=QuantizationMode.QLinearOps, static=True, extra_options=options
    )
    _keep_single_scales(quantizer, plan)
    return quantizer


def _keep_single_scales(quantizer: Any, plan: Plan) -> None:
    """Lets the tool for quantized operators give a weight one scale, in place: it takes one a channel for all or for none."""
    per_channel = quantizer.quantize_weight_per_channel

    def quantize(name: str, kind: Any, *arguments: Any, **options: Any) -> Any:
        if name in plan.weights and plan.weights[name].axis is None:
            return quantizer.quantize_initializer(quantizer.model.get_initializer(name), kind)
        return per_channel(name, kind, *arguments, **options)

    quantizer.quantize_weight_per_channel = quantize


def quant_type(bits: int, stored: str) -> "QuantType":
    """Returns the tool's type for a number of bits and `signed` or `unsigned`."""
    from onnxruntime.quantization import QuantType

    return getattr(QuantType, f"Q{'U' if stored == 'unsigned' else ''}Int{bits}")


def _tensor_data(plan: Plan) -> dict[str, Any]:
    from onnxruntime.quantization.calibrate import TensorData

    # The tool requires a range for every tensor, although the overrides replace all of them.
    return {t: TensorData(lowest=np.float32(0), highest=np.float32(1)) for t in plan.activations}


def _overrides(network: Network, plan: Plan, settings: Settings) -> dict[str, list[dict[str, Any]]]:
    overrides = {t: _entries(grid, settings.activation_type) for t, grid in plan.activations.items()}
    weights = {name: grid for name, grid in plan.weights.items() if name not in network.recurrent}
    return overrides | {name: _entries(grid, settings.weight_type) for name, grid in weights.items()}


def _entries(grid: Grid, stored: str) -> list[dict[str, Any]]:
    from onnxruntime.quantization.quant_utils import ONNX_TYPE_TO_NP_TYPE

    kind = quant_type(grid.stored_bits, stored)
    zero = stored_zero_point(grid, stored).astype(ONNX_TYPE_TO_NP_TYPE[kind.tensor_type])
    if grid.axis is None:
        return [{"quant_type": kind, "scale": grid.scale, "zero_point": zero}]
    return [
        {"quant_type": kind, "scale": np.asarray(scale), "zero_point": np.asarray(point), "axis": grid.axis}
        for scale, point in zip(grid.scale, zero, strict=True)
    ]


def _float_outputs(proto: "onnx.ModelProto", network: Network) -> None:
    """Removes the quantization of model outputs that come from a Gemm, which can return floats itself."""
    graph = proto.graph
    makers = {output: node for node in graph.node for output in node.output}
    for output in graph.output:
        dequantize = makers.get(output.name)
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            continue
        before = makers.get(dequantize.input[0])
        if before is None:
            continue
        if before.op_type == "QGemm":
            del before.input[7:]  # without an output scale and zero point it returns floats
            before.output[0] = output.name
            graph.node.remove(dequantize)
        elif before.op_type == "QuantizeLinear" and makers[before.input[0]].op_type == "Gemm":
            makers[before.input[0]].output[0] = output.name
            graph.node.remove(before)
            graph.node.remove(dequantize)


def _lower_opset(proto: "onnx.ModelProto") -> None:
    """Declares opset 20, in place, if the model is valid under opset 20.

    With opset 21 onnxruntime's optimizer, moving a signed QuantizeLinear before a Slice or Pad, sets its
    output type but gives it an unsigned zero point, and then refuses the model. Opset 21 only adds types,
    except for GroupNormalization; 8-bit models need none of them, and a model with a 4-bit weight fails the
    check and keeps 21.
    """
    import onnx

    default = next(o for o in proto.opset_import if o.domain in ("", "ai.onnx"))
    if default.version != OPSET_OF_ALL_WIDTHS or any(
        n.op_type == "GroupNormalization" for n in proto.graph.node
    ):
        return
    default.version = OPSET_OF_ALL_WIDTHS - 1
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        default.version = OPSET_OF_ALL_WIDTHS


def _use_raw_data(proto: "onnx.ModelProto", own: Collection[str]) -> None:
    """Stores the tool's initializers as raw data, in place, so that their size is independent of values."""
    from onnx import numpy_helper

    for tensor in proto.graph.initializer:
        if tensor.name not in own and not tensor.HasField("raw_data"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))


def _without_float_metadata(proto: "onnx.ModelProto") -> "onnx.ModelProto":
    """Removes metadata of the float model: shapes of removed tensors and the exporter's metadata of nodes."""
    del proto.graph.value_info[:]
    kept = [p for p in proto.metadata_props if p.key != "onnx.infer"]  # the tool's own entry
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
    return proto
