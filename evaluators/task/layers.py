"""The layers of an ONNX model, as tensors that can be compared between two versions of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from spaces.models.onnx.subgraphs import names_read

if TYPE_CHECKING:
    import onnx

_FLOAT = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_ACTIVATIONS = ("Relu", "Clip")


class _Positions(NamedTuple):
    """Input positions of a QOperator-format operator, and the axis of its weights along which scales are per channel."""

    weight: int
    output_scale: int
    channel_axis: int


_INTEGER = {
    "QLinearConv": _Positions(3, 6, 0),
    "QLinearMatMul": _Positions(3, 6, 1),
    "QGemm": _Positions(3, 7, 1),
}


@dataclass(frozen=True)
class Layer:
    """One layer with constant weights.

    Attributes:
        name: The name of its weights in the float model's file.
        op: Its operator.
        output: The tensor that its node writes.
        weight: The tensor of its weights, dequantized.
        result: The tensor of its result, dequantized, after the Relu or Clip that follows.
        is_float: Whether its weights are stored in floating point.
    """

    name: str
    op: str
    output: str
    weight: str
    result: str
    is_float: bool


def layers_of(model: "onnx.ModelProto") -> list[Layer]:
    """Returns the layers in the file's order.

    Layers of the QOperator format have no dequantized tensors in the file, so DequantizeLinear nodes are added to
    `model`.
    """
    dataflow = _Dataflow(model.graph)
    nodes = list(model.graph.node)
    layers = [_integer(n, dataflow, model) if n.op_type in _INTEGER else _float(n, dataflow) for n in nodes]
    return [layer for layer in layers if layer is not None]


def add_outputs(model: "onnx.ModelProto", names: Iterable[str]) -> None:
    """Adds tensors of the model to its outputs."""
    import onnx

    known = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(set(names) - known))


class _Dataflow:
    """The nodes that read each tensor, and the initializer from which each constant tensor is computed."""

    def __init__(self, graph: "onnx.GraphProto") -> None:
        self.origin = {i.name: i.name for i in graph.initializer}
        self.dequantized: set[str] = set()
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            if all(name in self.origin for name in node.input if name):
                self.origin.update(
                    (out, self.origin[node.input[0]] if node.input else out) for out in node.output
                )
                if node.op_type == "DequantizeLinear" or self.dequantized.intersection(node.input):
                    self.dequantized.update(node.output)
            for name in dict.fromkeys(names_read(node)):
                self.readers.setdefault(name, []).append(node)

    def result(self, tensor: str) -> str:
        """Returns the last tensor of the chain of QDQ pairs, Relu and Clip that starts at `tensor`."""
        while True:
            readers = self.readers.get(tensor, [])
            quantize = next((n for n in readers if n.op_type == "QuantizeLinear"), None)
            if quantize is not None:
                behind = self.readers.get(quantize.output[0], [])
                following = next((n for n in behind if n.op_type == "DequantizeLinear"), None)
            else:
                following = readers[0] if len(readers) == 1 and readers[0].op_type in _ACTIVATIONS else None
            if following is None:
                return tensor
            tensor = following.output[0]


def _float(node: "onnx.NodeProto", dataflow: _Dataflow) -> Layer | None:
    if node.op_type not in _FLOAT or node.input[1] not in dataflow.origin:
        return None
    weight = node.input[1]
    return Layer(
        dataflow.origin[weight].removesuffix("_quantized"),
        node.op_type,
        node.output[0],
        weight,
        dataflow.result(node.output[0]),
        weight not in dataflow.dequantized,
    )


def _integer(node: "onnx.NodeProto", dataflow: _Dataflow, model: "onnx.ModelProto") -> Layer | None:
    positions = _INTEGER[node.op_type]
    weight = node.input[positions.weight]
    if weight not in dataflow.origin:
        return None
    output = node.output[0]
    result = output
    if len(node.input) > positions.output_scale:
        reader = next((n for n in dataflow.readers.get(output, []) if n.op_type == "DequantizeLinear"), None)
        scale = list(node.input[positions.output_scale : positions.output_scale + 2])
        result = (
            dataflow.result(reader.output[0]) if reader is not None else _dequantize(model, [output, *scale])
        )
    scale = list(node.input[positions.weight + 1 : positions.weight + 3])
    dequantized = _dequantize(model, [weight, *scale], _channel_axis(node, positions))
    name = dataflow.origin[weight].removesuffix("_quantized")
    return Layer(name, node.op_type, output.removesuffix("_quantized"), dequantized, result, False)


def _channel_axis(node: "onnx.NodeProto", positions: _Positions) -> int:
    transposed = node.op_type == "QGemm" and any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if transposed else positions.channel_axis


def _dequantize(model: "onnx.ModelProto", inputs: list[str], channel_axis: int | None = None) -> str:
    """Adds a DequantizeLinear node and returns the name of its output."""
    import onnx

    output = f"{inputs[0]}_dequantized_for_comparison"
    scale = next((i for i in model.graph.initializer if i.name == inputs[1]), None)
    per_channel = scale is not None and len(scale.dims) == 1 and scale.dims[0] > 1
    axis = {"axis": channel_axis} if per_channel else {}
    model.graph.node.append(onnx.helper.make_node("DequantizeLinear", inputs, [output], **axis))
    return output
