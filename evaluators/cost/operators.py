"""What each ONNX operator is to a cost model: its kernel class, its multiply-accumulates, its operands."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from evaluators.cost.tensors import Tensor

if TYPE_CHECKING:
    import onnx


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


Kind = Literal["conv", "depthwise", "pointwise", "fully_connected", "pool", "elementwise", "other"]

# Operators with multiply-accumulates, to the positions of (activation, weight).
_CONVS = {
    "Conv": (0, 1),
    "ConvInteger": (0, 1),
    "FusedConv": (0, 1),
    "NhwcFusedConv": (0, 1),
    "QLinearConv": (0, 3),
}
_TRANSPOSED = {"ConvTranspose": (0, 1)}
_PRODUCTS = {
    "MatMul": (0, 1),
    "Gemm": (0, 1),
    "MatMulInteger": (0, 1),
    "MatMulIntegerToFloat": (0, 1),
    "DynamicQuantizeMatMul": (0, 1),
    "FusedMatMul": (0, 1),
    "FusedGemm": (0, 1),
    "MatMulNBits": (0, 1),
    "QLinearMatMul": (0, 3),
    "QGemm": (0, 3),
}
_WITH_MACS = _CONVS | _TRANSPOSED | _PRODUCTS

_POOLS = _names(
    "AveragePool GlobalAveragePool GlobalMaxPool GlobalLpPool LpPool MaxPool QLinearAveragePool "
    "QLinearGlobalAveragePool ReduceMax ReduceMean ReduceSum QLinearReduceMean"
)
# The output has the shape of the largest input, and each element is made from the elements at its place.
_ELEMENTWISE = _names(
    "Abs Add And BatchNormalization Cast Ceil Celu Clip Cos Div Elu Equal Erf Exp FastGelu Floor Gelu Greater HardSigmoid "
    "HardSwish LeakyRelu Less Log Max Mean Min Mish Mod Mul Neg Not Or Pow PRelu QLinearAdd QLinearLeakyRelu QLinearMul "
    "QLinearSigmoid QuickGelu Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt Sub Sum Swish Tanh "
    "ThresholdedRelu Where Xor DequantizeLinear QuantizeLinear"
)
# Neither multiply-accumulates nor in place, but nothing that would be missed.
_OTHERS = _names(
    "ArgMax ArgMin ChannelShuffle Concat ConstantOfShape DepthToSpace DynamicQuantizeLinear Expand Gather "
    "GroupNormalization InstanceNormalization LRN LayerNormalization LogSoftmax LpNormalization Pad QLinearConcat "
    "QLinearSoftmax Range ReduceMin ReduceProd Resize Shape SkipLayerNormalization Slice Softmax SpaceToDepth Split "
    "Tile Transpose Upsample"
)
# The same bytes under another shape.
VIEWS = _names("Dropout Flatten Identity Reshape Squeeze Unsqueeze")
RANDOM = _names("Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike")
# What runtimes compute while the kernel before writes its output (a bias is an Add of a constant).
_MELT_BEHIND_MACS = _names("Add BatchNormalization Clip Relu")
_MELT_BEHIND_ELEMENTWISE = _names("Clip Relu")


def is_known(op: str) -> bool:
    """Whether the analysis knows what the operator costs."""
    return op in _WITH_MACS or op in _POOLS or op in _ELEMENTWISE or op in _OTHERS or op in VIEWS


def has_macs(op: str) -> bool:
    """Whether the operator multiplies and accumulates."""
    return op in _WITH_MACS


def melts_behind(head: str, op: str) -> bool:
    """Whether runtimes melt `op` (whose further inputs are constant) into a kernel that `head` leads."""
    if op in _MELT_BEHIND_MACS and has_macs(head):
        return True
    return op in _MELT_BEHIND_ELEMENTWISE and head in ("Add", "Sub", "Mul", "BatchNormalization")


def operands(node: "onnx.NodeProto") -> list[str]:
    """The inputs that the arithmetic is about: activation and weight, or all inputs of an operator without MACs."""
    if node.op_type in _WITH_MACS:
        return [node.input[i] for i in _WITH_MACS[node.op_type]]
    return [name for name in node.input if name]


def kind_of(node: "onnx.NodeProto", tensors: Mapping[str, Tensor]) -> Kind:
    """Returns the kernel class."""
    op = node.op_type
    if op in _CONVS:
        weight = tensors[operands(node)[1]].shape
        if weight[1] == 1 and _attribute(node, "group", 1) > 1:
            return "depthwise"
        return "pointwise" if math.prod(weight[2:]) == 1 else "conv"
    if op in _TRANSPOSED:
        return "conv"
    if op in _PRODUCTS:
        return "fully_connected"
    if op in _POOLS:
        return "pool"
    return "elementwise" if op in _ELEMENTWISE else "other"


def macs(node: "onnx.NodeProto", tensors: Mapping[str, Tensor]) -> int:
    """Returns the multiply-accumulates; a bias and the arithmetic of other operators count as none.

    A convolution costs output elements x input channels a group x kernel positions, a matrix product output
    elements x inner size (Sze et al. 2017, "Efficient Processing of Deep Neural Networks", section III).
    """
    op = node.op_type
    if op not in _WITH_MACS:
        return 0
    activation, weight = (tensors[name].shape for name in operands(node))
    if op in _TRANSPOSED:
        return math.prod(activation) * math.prod(weight[1:])
    n_outputs = math.prod(tensors[node.output[0]].shape)
    if op in _CONVS:
        return n_outputs * math.prod(weight[1:])
    inner = -2 if _attribute(node, "transA", 0) else -1
    return n_outputs * activation[inner]


def _attribute(node: "onnx.NodeProto", name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)
