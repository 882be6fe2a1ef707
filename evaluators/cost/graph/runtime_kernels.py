"""Describes nodes of onnxruntime's optimized graph as kernels: class, arithmetic, bytes and shapes."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evaluators.cost.graph.kernel import Kernel
from evaluators.cost.graph.operators.geometry import Geometry, pair
from evaluators.cost.graph.operators.tensors import Tensor
from evaluators.devices.device import DType
from evaluators.devices.kinds import Kind
from spaces.models.onnx.subgraphs import graphs_inside, names_read

if TYPE_CHECKING:
    import onnx


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BLOCKED = "com.microsoft.nchwc"  # channels in blocks as wide as the processor's vectors
# Operators with multiply-accumulates -> input positions of (activation, weight).
_CONVS = {
    "Conv": (0, 1),
    "FusedConv": (0, 1),
    "NhwcFusedConv": (0, 1),
    "QLinearConv": (0, 3),
    "ConvInteger": (0, 1),
}
_TRANSPOSED = {"ConvTranspose": (0, 1), "QLinearConvTranspose": (0, 3)}
_PRODUCTS = {
    **dict.fromkeys(
        ("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "MatMulInteger", "MatMulIntegerToFloat"), (0, 1)
    ),
    **dict.fromkeys(("DynamicQuantizeMatMul", "MatMulNBits"), (0, 1)),
    **dict.fromkeys(("QLinearMatMul", "QGemm"), (0, 3)),
}
_WEIGHTED = _CONVS | _TRANSPOSED | _PRODUCTS
_WEIGHT_ZERO = {
    **dict.fromkeys(("QLinearConv", "QLinearConvTranspose", "QLinearMatMul", "QGemm"), 5),
    **dict.fromkeys(("ConvInteger", "MatMulInteger", "MatMulIntegerToFloat"), 3),
}
"""Operators -> input position of the zero point of their weight."""
_FIRST = {"QLinearConcat": (2,)}  # scale and zero point of the output come first
_KINDS: Mapping[Kind, frozenset[str]] = {
    "recurrent": _names("LSTM GRU RNN DynamicQuantizeLSTM"),
    "attention": _names("Attention MultiHeadAttention GroupQueryAttention QAttention"),
    "pool": _names(
        "MaxPool AveragePool GlobalAveragePool GlobalMaxPool NhwcMaxPool QLinearAveragePool QLinearGlobalAveragePool "
        "ReduceMean ReduceMax ReduceSum ReduceMin QLinearReduceMean LpPool"
    ),
    "normalization": _names(
        "Softmax LogSoftmax QLinearSoftmax LayerNormalization SkipLayerNormalization InstanceNormalization "
        "SimplifiedLayerNormalization SkipSimplifiedLayerNormalization GroupNorm LRN LpNormalization "
        "BatchNormalization RMSNormalization"
    ),
    "movement": _names(
        "Concat QLinearConcat Transpose Slice Pad Reshape Flatten Squeeze Unsqueeze Identity Split Gather Expand Tile "
        "Resize Upsample DepthToSpace SpaceToDepth ReorderInput ReorderOutput ConstantOfShape Shape"
    ),
    "quantize": _names("QuantizeLinear DequantizeLinear DynamicQuantizeLinear"),
    "elementwise": _names(
        "Abs Add And BiasGelu Cast Ceil Celu Clip Cos Div Elu Equal Erf Exp FastGelu Floor Gelu Greater HardSigmoid "
        "HardSwish LeakyRelu Less Log Max Mean Min Mish Mod Mul Neg Not Or Pow PRelu QLinearAdd QLinearLeakyRelu "
        "QLinearMul QLinearSigmoid QuickGelu Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt Sub "
        "Sum Swish Tanh ThresholdedRelu Where Xor"
    ),
}
_KIND_OF: Mapping[str, Kind] = {op: kind for kind, names in _KINDS.items() for op in names}
# Operators whose output shares the memory of their input.
_VIEWS = _names("Reshape Flatten Squeeze Unsqueeze Identity")
_SHORT = {"float": "f32", "float16": "f16", "uint8": "u8", "int8": "s8", "uint16": "u16", "int16": "s16"}


def kernel_of(
    node: "onnx.NodeProto",
    tensors: Mapping[str, Tensor],
    stored: Mapping[str, Tensor],
    fixed: Collection[str],
    shifted: Collection[str],
) -> Kernel:
    """Describes one node of the optimized graph.

    Args:
        node: The node.
        tensors: Every tensor of the graph by name, the stored ones included.
        stored: The stored tensors (initializers) by name, those of subgraphs by the names of `stored_inside`.
        fixed: Names of the stored tensors and of those computed from them alone, such as weights that are
            dequantized in every run.
        shifted: Names of the stored zero points with a nonzero value.
    """
    attributes = {a.name: a for a in node.attribute}
    read = [name for name in dict.fromkeys((*names_read(node), *stored_inside(node))) if name in tensors]
    inputs = tuple(name for name in read if name not in stored)
    constants = tuple(name for name in read if name in stored)
    outputs = tuple(name for name in node.output if name in tensors)
    positions = _WEIGHTED.get(node.op_type, _FIRST.get(node.op_type, (0,)))
    operands = [node.input[i] for i in positions if i < len(node.input)]
    known = [tensors[name] for name in operands if name in tensors]
    view = node.op_type in _VIEWS
    quantizes = _KIND_OF.get(node.op_type) == "quantize" and len(node.input) > 1
    geometry = _geometry(node, attributes, known, [tensors[o] for o in outputs])
    return Kernel(
        name=node.name,
        op=_variant(node, attributes, known, tensors[node.input[1]].shape if quantizes else (), shifted),
        kind=_kind(node, attributes, operands, tensors, fixed),
        dtype=_dtype(known),
        macs=_macs(node, known, [tensors[o] for o in outputs]),
        weight_bytes=sum(stored[name].n_bytes for name in constants),
        inputs=inputs,
        outputs=outputs,
        input_bytes=0 if view else sum(tensors[name].n_bytes for name in inputs),
        output_bytes=0 if view else sum(tensors[name].n_bytes for name in outputs),
        weight_bits=known[1].bits if len(known) > 1 and operands[1] in stored else 0,
        activation_bits=known[0].bits if known else 32,
        elements=sum(math.prod(tensors[name].shape) for name in outputs),
        constants=constants,
        nodes=(node.name,),
        geometry=geometry,
    )


def stored_inside(node: "onnx.NodeProto") -> dict[str, "onnx.TensorProto"]:
    """Returns the initializers of a node's subgraphs, by names that are unique in the whole model."""
    stored = (i for graph in graphs_inside(node) for i in graph.initializer)
    return {f"{node.name}/{n}/{i.name}": i for n, i in enumerate(stored)}


def _variant(
    node: "onnx.NodeProto",
    attributes: Mapping[str, Any],
    operands: Sequence[Tensor],
    scale: tuple[int, ...],
    shifted: Collection[str],
) -> str:
    """Returns the operator's name with the properties that select its implementation; see `runtime_graph`."""
    parts = ["nchwc"] if node.domain == _BLOCKED else []
    parts.append(node.op_type)
    if "channels_last" in attributes and attributes["channels_last"].i:
        parts.append("nhwc")
    types = "".join(_SHORT.get(t.dtype, t.dtype) for t in operands)
    if types not in ("f32", "f32f32"):
        parts.append(types)
    activation = attributes.get("activation")
    if activation is not None and activation.s and activation.s.decode() != "Relu":
        parts.append(activation.s.decode())  # takes its own pass over the output
    at = _WEIGHT_ZERO.get(node.op_type)
    if at is not None and at < len(node.input) and node.input[at] in shifted:
        parts.append("shifted")  # also sums the activations, which adds over 50 % to the time
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") and math.prod(scale) > 1:
        axis = attributes["axis"].i if "axis" in attributes else 1
        parts.append("last" if axis in (-1, len(operands[0].shape) - 1) else "channel")
    return ".".join(parts)


def _kind(
    node: "onnx.NodeProto",
    attributes: Mapping[str, Any],
    operands: Sequence[str],
    tensors: Mapping[str, Tensor],
    fixed: Collection[str],
) -> Kind:
    if node.op_type in _CONVS | _TRANSPOSED:
        weight = tensors[operands[1]].shape
        group = attributes["group"].i if "group" in attributes else 1
        if weight[1] == 1 and group > 1:
            return "depthwise"
        return "pointwise" if math.prod(weight[2:]) == 1 else "conv"
    if node.op_type in _PRODUCTS:
        return "fully_connected" if operands[1] in fixed else "attention"
    return _KIND_OF.get(node.op_type, "other")


def _dtype(operands: Sequence[Tensor]) -> DType:
    if operands and all(t.is_integer for t in operands):
        bits = [t.bits for t in operands]
        return "int16" if max(bits) > 8 else "int4" if min(bits) <= 4 else "int8"
    return "float16" if operands and all(t.dtype == "float16" for t in operands) else "float32"


def _macs(node: "onnx.NodeProto", operands: Sequence[Tensor], outputs: Sequence[Tensor]) -> int:
    if node.op_type not in _WEIGHTED or len(operands) < 2 or not outputs:
        return 0
    n_outputs = math.prod(outputs[0].shape)
    if node.op_type in _CONVS:
        return n_outputs * math.prod(operands[1].shape[1:])
    if node.op_type in _TRANSPOSED:
        return math.prod(operands[0].shape) * math.prod(operands[1].shape[1:])
    return n_outputs * _inner(node, operands)


def _inner(node: "onnx.NodeProto", operands: Sequence[Tensor]) -> int:
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    shape = operands[0].shape
    return shape[-2] if transposed and len(shape) > 1 else shape[-1]


def _geometry(
    node: "onnx.NodeProto",
    attributes: Mapping[str, Any],
    operands: Sequence[Tensor],
    outputs: Sequence[Tensor],
) -> Geometry | None:
    if not operands or not outputs or not outputs[0].shape:
        return None
    in_shape, out_shape = operands[0].shape, outputs[0].shape
    if node.op_type in _PRODUCTS:
        n = out_shape[-1]
        return Geometry(_inner(node, operands), n, out_size=(math.prod(out_shape) // max(n, 1), 1))
    last = node.op_type.startswith("Nhwc") or (
        "channels_last" in attributes and bool(attributes["channels_last"].i)
    )
    in_channels, in_size = _channels_and_size(in_shape, last)
    out_channels, out_size = _channels_and_size(out_shape, last)
    weight = operands[1].shape if node.op_type in _CONVS | _TRANSPOSED and len(operands) > 1 else ()
    window = pair(weight[2:]) if len(weight) > 2 else pair(_ints(attributes, "kernel_shape"))
    group = int(attributes["group"].i) if "group" in attributes else 1
    return Geometry(
        in_channels, out_channels, window, pair(_ints(attributes, "strides")), group, in_size, out_size
    )


def _channels_and_size(shape: Sequence[int], channels_last: bool) -> tuple[int, tuple[int, int]]:
    """Returns the channels and (height, width); of a matrix, columns are channels, rows the height."""
    if len(shape) < 3:
        return (shape[-1] if shape else 1), (math.prod(shape[:-1]), 1)
    if channels_last:
        return shape[-1], pair(shape[1:-1])
    return shape[1], pair(shape[2:])


def _ints(attributes: Mapping[str, Any], name: str) -> tuple[int, ...]:
    return tuple(attributes[name].ints) if name in attributes else ()
