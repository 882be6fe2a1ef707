"""The quantizable layers of an ONNX graph, named by their weight initializers.

Node and tensor names change from one export to the next; the weight initializer keeps its name in the
user's state dict. So the name of a layer is that of its weight everywhere: in knobs, reports and costs.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

QUANTIZABLE = ("Conv", "ConvTranspose", "Gemm", "MatMul")
RECURRENT = ("LSTM", "GRU", "RNN")


@dataclass(frozen=True)
class Layer:
    """One Conv, ConvTranspose, Gemm or MatMul with a constant weight, or one of the two weights of an LSTM, GRU or RNN.

    Attributes:
        name: The weight initializer's name, e.g. `layer1.0.conv1.weight`. Two nodes that share a weight
            yield two layers of the same name.
        node: The node's name; unique in an exported graph.
        op_type: The node's operator.
        input: Name of the input activation tensor.
        output: Name of the output tensor.
        weight_shape: Shape of the weight, in ONNX's layout for the operator.
        weight_axis_out: The weight's axis that runs over output channels. For a ConvTranspose with groups
            it runs over the channels of one group, for an LSTM, GRU or RNN over all its gates.
        bias: Name of the bias tensor; None without one. A MatMul's bias is a separate Add and not included
            here.
        groups: Groups of a ConvTranspose, else 1. Not compared, because the node decides it.
    """

    name: str
    node: str
    op_type: str
    input: str
    output: str
    weight_shape: tuple[int, ...]
    weight_axis_out: int
    bias: str | None = None
    groups: int = field(default=1, compare=False)

    @property
    def n_outputs(self) -> int:
        """Number of output channels."""
        return self.weight_shape[self.weight_axis_out] * self.groups


def layers(proto: "onnx.ModelProto") -> list[Layer]:
    """Lists the quantizable layers of the main graph in topological order.

    Args:
        proto: A checked ONNX model, whose nodes are in topological order.

    Returns:
        One entry per Conv, ConvTranspose, Gemm or MatMul whose second input is an initializer.
    """
    shapes = {i.name: tuple(i.dims) for i in proto.graph.initializer}
    found = (
        node for node in proto.graph.node if node.op_type in QUANTIZABLE and node.domain in ("", "ai.onnx")
    )
    return [_layer(node, shapes[node.input[1]]) for node in found if node.input[1] in shapes]


def recurrent_layers(proto: "onnx.ModelProto") -> list[Layer]:
    """Lists the constant weights of LSTM, GRU and RNN nodes of the main graph, input weights first, in topological order.

    Args:
        proto: A checked ONNX model, whose nodes are in topological order.
    """
    shapes = {i.name: tuple(i.dims) for i in proto.graph.initializer}
    found = (
        node for node in proto.graph.node if node.op_type in RECURRENT and node.domain in ("", "ai.onnx")
    )
    return [
        Layer(name, node.name, node.op_type, node.input[0], next(filter(None, node.output)), shapes[name], 1)
        for node in found
        for name in node.input[1:3]
        if name in shapes
    ]


def layer_names(proto: "onnx.ModelProto") -> list[str]:
    """Lists the weights that can be quantized, each once, those of LSTM, GRU and RNN last."""
    return list(dict.fromkeys(layer.name for layer in (*layers(proto), *recurrent_layers(proto))))


def _layer(node: "onnx.NodeProto", weight_shape: tuple[int, ...]) -> Layer:
    return Layer(
        name=node.input[1],
        node=node.name,
        op_type=node.op_type,
        input=node.input[0],
        output=node.output[0],
        weight_shape=weight_shape,
        weight_axis_out=_axis_out(node, len(weight_shape)),
        bias=node.input[2] if len(node.input) > 2 and node.input[2] else None,
        groups=_groups(node),
    )


def _groups(node: "onnx.NodeProto") -> int:
    given = (int(a.i) for a in node.attribute if a.name == "group")
    return next(given, 1) if node.op_type == "ConvTranspose" else 1


def _axis_out(node: "onnx.NodeProto", n_axes: int) -> int:
    """Conv is (out, in, ...), ConvTranspose (in, out / groups, ...), Gemm (in, out) or transposed, MatMul (..., in, out)."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        return 0 if transposed else 1
    return n_axes - 1
