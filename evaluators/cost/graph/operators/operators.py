"""What each ONNX operator is to a cost model: its kernel class, its operands, how runtimes fuse it."""

import math
from collections.abc import Container, Mapping

from evaluators.cost.graph.operators.einsum import einsum_macs
from evaluators.cost.graph.operators.nodes import Node
from evaluators.cost.graph.operators.tensors import Tensor
from evaluators.devices.kinds import Kind


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Operators with multiply-accumulates, to the positions of (activation, weight).
_CONVS = {
    "Conv": (0, 1),
    "ConvInteger": (0, 1),
    "DeformConv": (0, 1),
    "FusedConv": (0, 1),
    "NhwcConv": (0, 1),
    "NhwcFusedConv": (0, 1),
    "QLinearConv": (0, 3),
}
_TRANSPOSED = {"ConvTranspose": (0, 1), "QLinearConvTranspose": (0, 3)}
_PRODUCTS = {
    "MatMul": (0, 1),
    "Gemm": (0, 1),
    "MatMulInteger": (0, 1),
    "MatMulIntegerToFloat": (0, 1),
    "DynamicQuantizeMatMul": (0, 1),
    "FusedMatMul": (0, 1),
    "FusedGemm": (0, 1),
    "GemmFastGelu": (0, 1),
    "MatMulFpQ4": (0, 1),
    "MatMulBnb4": (0, 1),
    "MatMulNBits": (0, 1),
    "QLinearMatMul": (0, 3),
    "QGemm": (0, 3),
}
_RECURRENT = {"LSTM": (0, 1), "GRU": (0, 1), "RNN": (0, 1), "DynamicQuantizeLSTM": (0, 1)}
# Whole attention layers: scores and their product with the values, in onnxruntime's own also the projections.
_ATTENTION = _names("Attention QAttention MultiHeadAttention GroupQueryAttention")

_POOLS = _names(
    "ArgMax ArgMin AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool NhwcMaxPool "
    "QLinearAveragePool QLinearGlobalAveragePool QLinearReduceMean ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp "
    "ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
)
# The output has the shape of the largest input, and each element is made from the elements at its place.
_ELEMENTWISE = _names(
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh BatchNormalization BiasAdd BiasGelu BitShift BitwiseAnd BitwiseNot "
    "BitwiseOr BitwiseXor Cast CastLike Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp FastGelu Floor Gelu Greater "
    "GreaterOrEqual HardSigmoid HardSwish IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not "
    "Or PRelu Pow QLinearAdd QLinearLeakyRelu QLinearMul QLinearSigmoid QuickGelu Reciprocal Relu RotaryEmbedding "
    "Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor"
)
_NORMALIZATIONS = _names(
    "EmbedLayerNormalization GroupNorm GroupNormalization InstanceNormalization LRN LayerNormalization LogSoftmax "
    "LpNormalization MeanVarianceNormalization QLinearSoftmax RMSNormalization SimplifiedLayerNormalization SkipGroupNorm "
    "SkipLayerNormalization SkipSimplifiedLayerNormalization Softmax"
)
_MOVEMENT = _names(
    "CenterCropPad ChannelShuffle Concat ConstantOfShape DepthToSpace Expand EyeLike Gather GatherBlockQuantized "
    "GatherElements GatherND GridSample MaxUnpool NhwcUpsample OneHot Pad QLinearConcat QLinearWhere Range ReorderInput ReorderOutput Resize "
    "ReverseSequence ScatterElements ScatterND Slice SpaceToDepth Split TensorScatter Tile Transpose Trilu Upsample"
)
_QUANTIZE = _names("DequantizeLinear DynamicQuantizeLinear QuantizeLinear")
# Their result follows from the shape of what they read alone.
SHAPES = _names("Shape Size")
# The same bytes under another shape.
VIEWS = _names("Dropout Flatten Identity Reshape Squeeze Unsqueeze")
RANDOM = _names("Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike")
# Operators that look rows up: they read as many of their first input as they write.
LOOKUPS = _names("Gather GatherBlockQuantized GatherElements GatherND")

_KIND_OF: dict[str, Kind] = {
    **dict.fromkeys(_TRANSPOSED, "conv"),
    **dict.fromkeys(_RECURRENT, "recurrent"),
    **dict.fromkeys(_ATTENTION, "attention"),
    **dict.fromkeys(_POOLS, "pool"),
    **dict.fromkeys(_ELEMENTWISE, "elementwise"),
    **dict.fromkeys(_NORMALIZATIONS, "normalization"),
    **dict.fromkeys(_MOVEMENT | SHAPES | VIEWS, "movement"),
    **dict.fromkeys(_QUANTIZE, "quantize"),
}
_WITH_WEIGHT = _CONVS | _TRANSPOSED | _PRODUCTS | _RECURRENT

# Quantize their activation themselves, and compute on 8 bits.
_DYNAMIC = _names("DynamicQuantizeLSTM DynamicQuantizeMatMul")

# What runtimes compute while the kernel before writes its output (a bias is an Add of a constant).
_MELT_BEHIND_MACS = _names("Add BatchNormalization Clip Relu")
_MELT_BEHIND_ELEMENTWISE = _names("Clip Relu")
_HEADS_OF_ELEMENTWISE = _names("Add Sub Mul BatchNormalization")


def is_known(op: str) -> bool:
    """Whether the analysis knows what the operator costs."""
    return op in _WITH_WEIGHT or op in _KIND_OF or op == "Einsum"


def has_macs(op: str) -> bool:
    """Whether the operator multiplies and accumulates."""
    return op in _WITH_WEIGHT or op in _ATTENTION or op == "Einsum"


def quantizes_itself(node: Node) -> bool:
    """Whether the node takes floating point and computes on 8-bit activations."""
    return node.op in _DYNAMIC or node.integer("accuracy_level", 0) == 4  # MatMulNBits computes on int8 there


def is_convolution(op: str) -> bool:
    """Whether the operator is a convolution, transposed or not."""
    return op in _CONVS or op in _TRANSPOSED


def is_transposed(op: str) -> bool:
    """Whether the operator is a transposed convolution."""
    return op in _TRANSPOSED


def is_product(op: str) -> bool:
    """Whether the operator is a matrix product."""
    return op in _PRODUCTS


def is_recurrent(op: str) -> bool:
    """Whether the operator is a recurrent layer."""
    return op in _RECURRENT


def melts_behind(head: str, op: str) -> bool:
    """Whether runtimes melt `op` (whose further inputs are constant) into a kernel that `head` leads."""
    if op in _MELT_BEHIND_MACS and (head in _CONVS or head in _TRANSPOSED or head in _PRODUCTS):
        return True
    return op in _MELT_BEHIND_ELEMENTWISE and head in _HEADS_OF_ELEMENTWISE


def operands(node: Node) -> list[str]:
    """The inputs that the arithmetic is about: activation and weight, or all inputs of an operator without one."""
    if node.op == "QAttention":
        return list(node.inputs[:2])
    if node.op in _WITH_WEIGHT:
        return [node.inputs[i] for i in _WITH_WEIGHT[node.op]]
    return [name for name in node.inputs if name]


def kind_of(node: Node, tensors: Mapping[str, Tensor], constants: Container[str]) -> Kind:
    """Returns the kernel class; `constants` holds the tensors that no input influences."""
    op = node.op
    if op in _CONVS:
        if _is_depthwise(node, tensors):
            return "depthwise"
        return "pointwise" if math.prod(window_of(node, tensors)) == 1 else "conv"
    if op == "Einsum" and not einsum_macs(
        node.text("equation"), [tensors[name].shape for name in node.inputs]
    ):
        return "movement" if len(node.inputs) == 1 else "elementwise"
    if op in _PRODUCTS or op == "Einsum":
        with_weight = any(name in constants for name in operands(node))
        return "fully_connected" if with_weight else "attention"
    return _KIND_OF.get(op, "other")


def _is_depthwise(node: Node, tensors: Mapping[str, Tensor]) -> bool:
    channels = tensors[operands(node)[0]].shape[-1 if is_channels_last(node) else 1]
    return 1 < channels == node.integer("group", 1)


def is_channels_last(node: Node) -> bool:
    """Whether the operator, one of a runtime's own, has its channels in the last axis."""
    return node.op.startswith("Nhwc") or node.domain.endswith("nhwc") or node.integer("channels_last", 0) == 1


def window_of(node: Node, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Positions of a convolution's window, one number for each spatial axis."""
    return node.integers("kernel_shape") or tensors[operands(node)[1]].shape[2:]


def inner_size(node: Node, tensors: Mapping[str, Tensor]) -> int:
    """What a matrix product sums over."""
    shape = tensors[operands(node)[0]].shape
    return shape[-2 if node.integer("transA", 0) else -1]
