"""The layers of an ONNX model, as tensors that can be compared between two versions of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

# Position of the weight; of weight, scale and zero point, and the axis of its channels.
_FLOAT = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
_INTEGER = {"QLinearConv": (3, 4, 5, 0), "QLinearMatMul": (3, 4, 5, 1), "QGemm": (3, 4, 5, 1)}


@dataclass(frozen=True)
class Layer:
    """One layer with weights.

    Attributes:
        name: Name of its node (its output's where the node has none).
        op: Its operator.
        keys: Names by which another version of the model may know the layer, best first.
        weight: Tensor of its weights, dequantized.
        result: Tensor of its output as the float model calls it, after Relu or Clip; empty if it has no such name.
        seen: The same tensor as the layers behind it see it, quantized and dequantized.
        is_float: Whether its weights are stored in floating point.
    """

    name: str
    op: str
    keys: tuple[str, ...]
    weight: str
    result: str
    seen: str
    is_float: bool


def layers_of(model: "onnx.ModelProto") -> list[Layer]:
    """Returns the layers in the file's order.

    Layers of the QOperator format have no dequantized weights in the file, so nodes that make them are added to
    `model`.
    """
    wiring = _Wiring(model.graph)
    layers = [_float_layer(node, wiring) for node in model.graph.node if node.op_type in _FLOAT]
    layers += [_integer_layer(node, model) for node in list(model.graph.node) if node.op_type in _INTEGER]
    return [layer for layer in layers if layer is not None]


def add_outputs(model: "onnx.ModelProto", names: Iterable[str]) -> None:
    """Makes tensors of the model its outputs too."""
    import onnx

    known = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(set(names) - known))


class _Wiring:
    """Who makes and who reads each tensor of a graph, and which tensors are constant."""

    def __init__(self, graph: "onnx.GraphProto") -> None:
        self.constants = {i.name for i in graph.initializer}
        self.quantized: set[str] = set()
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            if all(name in self.constants for name in node.input if name):
                self.constants.update(node.output)
                if node.op_type == "DequantizeLinear" or self.quantized.intersection(node.input):
                    self.quantized.update(node.output)
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)


def _float_layer(node: "onnx.NodeProto", wiring: _Wiring) -> Layer | None:
    weight = node.input[_FLOAT[node.op_type]]
    if weight not in wiring.constants:
        return None
    result, seen = _result(node.output[0], wiring)
    keys = (node.output[0], node.name)
    return Layer(
        node.name or node.output[0], node.op_type, keys, weight, result, seen, weight not in wiring.quantized
    )


def _result(output: str, wiring: _Wiring) -> tuple[str, str]:
    """Follows Relu and Clip to where the output is quantized, if it is."""
    while True:
        readers = wiring.readers.get(output, [])
        quantize = next((n for n in readers if n.op_type == "QuantizeLinear"), None)
        if quantize is not None:
            dequantize = wiring.readers.get(quantize.output[0], [])
            names = [n.output[0] for n in dequantize if n.op_type == "DequantizeLinear"]
            return output, names[0] if names else output
        if len(readers) != 1 or readers[0].op_type not in ("Relu", "Clip"):
            return output, output
        output = readers[0].output[0]


def _integer_layer(node: "onnx.NodeProto", model: "onnx.ModelProto") -> Layer | None:
    import onnx

    *positions, axis = _INTEGER[node.op_type]
    stored = {i.name: i for i in model.graph.initializer}
    inputs = [node.input[p] for p in positions]
    if any(name not in stored for name in inputs):
        return None
    weight = f"{inputs[0]}_dequantized"
    per_channel = len(stored[inputs[1]].dims) == 1 and stored[inputs[1]].dims[0] > 1
    attributes = {"axis": axis} if per_channel else {}
    model.graph.node.append(onnx.helper.make_node("DequantizeLinear", inputs, [weight], **attributes))
    keys = (node.output[0].removesuffix("_quantized"), node.name.removesuffix("_quant"))
    return Layer(node.name or node.output[0], node.op_type, keys, weight, "", "", False)
