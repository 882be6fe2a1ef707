"""The quantizable nodes and tensors of a float ONNX graph: read once per network, used by all candidates."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from spaces.errors import StageError
from spaces.models.layers import QUANTIZABLE, Layer, layers

if TYPE_CHECKING:
    import onnx

# Operators besides the layers that have an integer kernel or only move values. Softmax, LayerNormalization,
# reductions and similar ones stay float: they are cheap, and lose accuracy in 8 bits.
PASSING = (
    *("Add", "Mul", "Concat", "Relu", "Clip", "LeakyRelu", "Sigmoid"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Resize", "Pad"),
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split"),
)
ACTIVATIONS = ("Relu", "Clip")
_ALL_INPUTS = ("Add", "Mul", "Concat")  # of the others only the first input is data


@dataclass(frozen=True)
class Operator:
    """One node that can be quantized.

    Attributes:
        name: The node's name.
        layer: The layer's name; None for an operator without weights.
        inputs: Names of its input activations.
        outputs: Names of its output activations.
    """

    name: str
    layer: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Network:
    """The quantizable parts of a graph.

    Attributes:
        layers: Layers with a constant weight, in topological order.
        tensors: Names of the activations that may be quantized.
        follows: Tensor that only a ReLU or Clip reads -> output of the ReLU or Clip, whose range it gets.
        operators: All nodes that can be quantized, in topological order.
        fixed: Nodes that are never quantized: an operand of an Add is a constant (rounding a MatMul's bias to
            8 bits would cost accuracy and save nothing), or the weight or bias of a layer is computed.
        forked: ReLU and Clip nodes whose input has other readers, so that they cannot be folded.
    """

    layers: tuple[Layer, ...]
    tensors: tuple[str, ...]
    follows: Mapping[str, str]
    operators: tuple[Operator, ...]
    fixed: tuple[str, ...]
    forked: tuple[str, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the layers, each once, in topological order."""
        return tuple(dict.fromkeys(layer.name for layer in self.layers))

    def float_nodes(self, quantized: Collection[str]) -> tuple[str, ...]:
        """Returns the names of the nodes that stay float if exactly these layers are quantized.

        An operator without weights is quantized if all its inputs are integer anyway: outputs of a quantized
        operator, or inputs of a quantized layer. Otherwise rounding would cost accuracy and save nothing.
        """
        integer = {layer.input for layer in self.layers if layer.name in quantized}
        staying = list(self.fixed)
        for operator in self.operators:
            has_integer_inputs = bool(operator.inputs) and integer.issuperset(operator.inputs)
            if operator.layer in quantized if operator.layer else has_integer_inputs:
                integer.update(operator.outputs)
            else:
                staying.append(operator.name)
        return tuple(staying)


def network_of(proto: "onnx.ModelProto") -> Network:
    """Returns the quantizable parts of a prepared model.

    Raises:
        StageError: The model has no layer with a constant weight.
    """
    graph = _Graph(proto)
    constant = tuple(layer for layer in layers(proto) if graph.is_constant(layer))
    if not constant:
        raise StageError(
            "the model has no Conv, ConvTranspose, Gemm or MatMul with a float weight initializer"
        )
    follows = {
        node.input[0]: node.output[0]
        for node in graph.nodes
        if node.op_type in ACTIVATIONS and not graph.is_forked(node.input[0])
    }
    fixed = graph.fixed({layer.node for layer in constant})
    operators = tuple(graph.operators(constant, fixed))
    touched = (t for operator in operators for t in (*operator.inputs, *operator.outputs))
    return Network(
        layers=constant,
        tensors=tuple(dict.fromkeys(t for t in touched if t not in follows)),
        follows=follows,
        operators=operators,
        fixed=tuple(sorted(fixed)),
        forked=tuple(n.name for n in graph.nodes if n.op_type in ACTIVATIONS and n.input[0] not in follows),
    )


class _Graph:
    def __init__(self, proto: "onnx.ModelProto") -> None:
        from onnx import TensorProto

        self._weights = {i.name for i in proto.graph.initializer if i.data_type == TensorProto.FLOAT}
        values = (*proto.graph.value_info, *proto.graph.input, *proto.graph.output)
        constants = {o for node in proto.graph.node if node.op_type == "Constant" for o in node.output}
        initializers = {i.name for i in proto.graph.initializer}
        self._floats = (
            {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
            - constants
            - initializers
        )
        self.nodes = [
            n for n in proto.graph.node if n.op_type in QUANTIZABLE + PASSING and n.domain in ("", "ai.onnx")
        ]
        self._results = {o.name for o in proto.graph.output}
        self._n_readers = Counter(tensor for node in proto.graph.node for tensor in node.input)

    def is_constant(self, layer: Layer) -> bool:
        return layer.name in self._weights and (layer.bias is None or layer.bias in self._weights)

    def fixed(self, layer_nodes: Collection[str]) -> set[str]:
        return {node.name for node in self.nodes if node.name not in layer_nodes and not self._is_free(node)}

    def _is_free(self, node: "onnx.NodeProto") -> bool:
        if node.op_type in (*_ALL_INPUTS, "MatMul"):  # a MatMul of two activations is not a layer
            return self._floats.issuperset(node.input)
        return node.op_type not in QUANTIZABLE

    def inputs(self, node: "onnx.NodeProto") -> tuple[str, ...]:
        data = node.input if node.op_type in (*_ALL_INPUTS, "MatMul") else node.input[:1]
        return tuple(t for t in data if t in self._floats)

    def outputs(self, node: "onnx.NodeProto") -> tuple[str, ...]:
        return tuple(t for t in node.output if t in self._floats)

    def operators(self, constant: tuple[Layer, ...], fixed: Collection[str]) -> Iterator[Operator]:
        layer_of = {layer.node: layer.name for layer in constant}
        for node in self.nodes:
            if node.name not in fixed:
                yield Operator(node.name, layer_of.get(node.name), self.inputs(node), self.outputs(node))

    def is_forked(self, tensor: str) -> bool:
        return self._n_readers[tensor] > 1 or tensor in self._results
