"""Properties of ONNX operators for the cost model: kernel class, operands, and how runtimes fuse them."""

import math
from collections.abc import Container, Mapping

from evaluators.cost.graph.operators.einsum import einsum_macs
from evaluators.cost.graph.operators.nodes import Node
from evaluators.cost.graph.operators.tensors import Tensor
from evaluators.devices.kinds import Kind


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Operators with multiply-accumulates -> input positions of (activation, weight).
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
# Whole attention layers: scores and their product with the values; onnxruntime's `Attention` and `QAttention`
# also the projections.
_ATTENTION = _names("Attention QAttention MultiHeadAttention GroupQueryAttention")

_POOLS = _names(
    "ArgMax ArgMin AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool NhwcMaxPool "
    "QLinearAveragePool QLinearGlobalAveragePool QLinearReduceMean ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp "
    "ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
)
# The output has the broadcast shape of the inputs; each element depends on the input elements at its
# position.
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
# The output depends only on the input's shape.
SHAPES = _names("Shape Size")
# The output has the input's bytes under another shape.
VIEWS = _names("Dropout Flatten Identity Reshape Squeeze Unsqueeze")
RANDOM = _names("Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike")
# Gathering operators: they read only as many elements of their first input as they write.
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

# Quantize their activation dynamically and compute on 8 bits.
_DYNAMIC = _names("DynamicQuantizeLSTM DynamicQuantizeMatMul")

# Operators that runtimes fuse into the preceding kernel (a bias is an Add of a constant).
_FUSED_AFTER_MACS = _names("Add BatchNormalization Clip Relu")
_FUSED_AFTER_ELEMENTWISE = _names("Clip Relu")
_HEADS_OF_ELEMENTWISE = _names("Add Sub Mul BatchNormalization")


def is_known(op: str) -> bool:
    """Whether the analysis knows the operator's kernel class and arithmetic."""
    return op in _WITH_WEIGHT or op in _KIND_OF or op == "Einsum"


def has_macs(op: str) -> bool:
    """Whether the operator has multiply-accumulates."""
    return op in _WITH_WEIGHT or op in _ATTENTION or op == "Einsum"


def quantizes_itself(node: Node) -> bool:
    """Whether the node reads floating-point activations and quantizes them to 8 bits itself."""
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


def is_fused(head: str, op: str) -> bool:
    """Whether runtimes fuse `op`, whose other inputs are constant, into a kernel that begins with `head`."""
    if op in _FUSED_AFTER_MACS and (head in _CONVS or head in _TRANSPOSED or head in _PRODUCTS):
        return True
    return op in _FUSED_AFTER_ELEMENTWISE and head in _HEADS_OF_ELEMENTWISE


def operands(node: Node) -> list[str]:
    """Returns the names of the operands: activation and weight, or all inputs without a weight."""
    if node.op == "QAttention":
        return list(node.inputs[:2])
    if node.op in _WITH_WEIGHT:
        return [node.inputs[i] for i in _WITH_WEIGHT[node.op]]
    return [name for name in node.inputs if name]


def kind_of(node: Node, tensors: Mapping[str, Tensor], constants: Container[str]) -> Kind:
    """Returns the kernel class of a node.

    Args:
        node: The node.
        tensors: Every tensor by name.
        constants: Names of the tensors that do not depend on the graph's inputs.
    """
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
    """Whether the node, of an operator internal to a runtime, has its channels in the last axis."""
    return node.op.startswith("Nhwc") or node.domain.endswith("nhwc") or node.integer("channels_last", 0) == 1


def window_of(node: Node, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Returns the size of a convolution's window, one number per spatial axis."""
    return node.integers("kernel_shape") or tensors[operands(node)[1]].shape[2:]


def inner_size(node: Node, tensors: Mapping[str, Tensor]) -> int:
    """Returns the inner dimension of a matrix product, which it sums over."""
    shape = tensors[operands(node)[0]].shape
    return shape[-2 if node.integer("transA", 0) else -1]
