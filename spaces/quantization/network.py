"""What there is to quantize in a float ONNX graph: read once for each network, used by every candidate."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spaces.artifact import Artifact
from spaces.errors import StageError
from spaces.models.layers import QUANTIZABLE, Layer, layers

if TYPE_CHECKING:
    import onnx

# Operators besides the layers that have an integer kernel or only move values. Softmax, LayerNormalization, reductions
# and the like stay float: they are cheap, and 8 bits hurt them.
PASSING = (
    *("Add", "Mul", "Concat", "Relu", "Clip", "LeakyRelu", "Sigmoid"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Resize", "Pad"),
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split"),
)
ACTIVATIONS = ("Relu", "Clip")
_ALL_INPUTS = ("Add", "Mul", "Concat")  # of the others only the first input is data
OLDEST_OPSET = 13  # the first with one scale for each channel


@dataclass(frozen=True)
class Operator:
    """One node that can be quantized.

    Attributes:
        name: The node's name.
        layer: The layer's name; None for an operator without weights.
        inputs: Activations that go in.
        outputs: Activations that come out.
    """

    name: str
    layer: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Network:
    """The facts about a graph that quantization needs.

    Attributes:
        layers: Layers with a constant weight, in topological order.
        tensors: Activations that may be quantized.
        follows: Tensor that only a ReLU or Clip reads -> that one's output, whose range it takes.
        operators: Everything that can be quantized, in topological order.
        constant: Nodes that are never quantized since an operand is a constant (rounding a bias that a
            MatMul leaves to an Add to 8 bits would hurt for nothing).
        forked: ReLU and Clip nodes whose input something else reads too, so that they cannot be folded.
    """

    layers: tuple[Layer, ...]
    tensors: tuple[str, ...]
    follows: Mapping[str, str]
    operators: tuple[Operator, ...]
    constant: tuple[str, ...]
    forked: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers, each once, in topological order."""
        return tuple(dict.fromkeys(layer.name for layer in self.layers))

    def float_nodes(self, quantized: Collection[str]) -> tuple[str, ...]:
        """Names the nodes that stay float if just these layers are quantized.

        An operator without weights is quantized where all that goes in is integer anyway: it comes out of
        a quantized operator, or a quantized layer reads it too. Elsewhere rounding would cost accuracy and save nothing.
        """
        integer = {layer.input for layer in self.layers if layer.name in quantized}
        staying = list(self.constant)
        for operator in self.operators:
            if operator.layer in quantized if operator.layer else integer.issuperset(operator.inputs):
                integer.update(operator.outputs)
            else:
                staying.append(operator.name)
        return tuple(staying)


def prepared(artifact: Artifact) -> "onnx.ModelProto":
    """Parses a float model, names what is nameless, and infers shapes.

    Raises:
        InputError: The artifact is no ONNX model.
        StageError: The model is quantized already, or older than can be converted.
    """
    proto = artifact.proto()
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in proto.graph.node):
        raise StageError("the model is quantized already: quantize needs the float model")
    _name_nodes(proto)
    _split_biases(proto)
    return with_opset(proto, OLDEST_OPSET)


def with_opset(proto: "onnx.ModelProto", opset: int) -> "onnx.ModelProto":
    """Returns the model with shapes inferred, converted to `opset` if it is older.

    Raises:
        StageError: The converter cannot do it.
    """
    import onnx
    from onnx import shape_inference, version_converter

    have = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    if have < opset:
        try:
            proto = version_converter.convert_version(proto, opset)
        except Exception as error:  # the converter raises whatever its C++ core throws
            raise StageError(
                f"the model has ONNX opset {have} and cannot be converted to {opset}, which is needed here: {error}"
            ) from error
        proto.ir_version = max(proto.ir_version, onnx.helper.find_min_ir_version_for(proto.opset_import))
        _name_nodes(proto)
    return shape_inference.infer_shapes(proto)


def _name_nodes(proto: "onnx.ModelProto") -> None:
    taken: set[str] = set()
    for i, node in enumerate(proto.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{i}"
        taken.add(node.name)


def _split_biases(proto: "onnx.ModelProto") -> None:
    """Gives every layer a bias of its own: a quantized bias has the scale of its layer's input."""
    import onnx

    found = {i.name: i for i in proto.graph.initializer}
    taken: set[str] = set()
    for node in proto.graph.node:
        if node.op_type not in QUANTIZABLE or len(node.input) < 3 or node.input[2] not in found:
            continue
        name = node.input[2]
        if name in taken:
            copy = onnx.TensorProto()
            copy.CopyFrom(found[name])
            copy.name = node.input[2] = f"{name}_of_{node.name}"
            proto.graph.initializer.append(copy)
        taken.add(name)


def network_of(proto: "onnx.ModelProto") -> Network:
    """Reads the facts off a prepared model.

    Raises:
        StageError: The model has no layer with a constant weight.
    """
    graph = _Graph(proto)
    found = tuple(layer for layer in layers(proto) if layer.name in graph.weights)
    if not found:
        raise StageError(
            "the model has no Conv, ConvTranspose, Gemm or MatMul with a float weight initializer"
        )
    follows = {
        node.input[0]: node.output[0]
        for node in graph.nodes
        if node.op_type in ACTIVATIONS and not graph.is_forked(node.input[0])
    }
    operators = tuple(graph.operators(found))
    touched = (t for operator in operators for t in (*operator.inputs, *operator.outputs))
    return Network(
        layers=found,
        tensors=tuple(dict.fromkeys(t for t in touched if t not in follows)),
        follows=follows,
        operators=operators,
        constant=tuple(sorted(graph.constant)),
        forked=tuple(n.name for n in graph.nodes if n.op_type in ACTIVATIONS and n.input[0] not in follows),
    )


class _Graph:
    def __init__(self, proto: "onnx.ModelProto") -> None:
        from onnx import TensorProto

        self.weights = {i.name for i in proto.graph.initializer if i.data_type == TensorProto.FLOAT}
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
        self._n_readers: dict[str, int] = {}
        for node in proto.graph.node:
            for tensor in node.input:
                self._n_readers[tensor] = self._n_readers.get(tensor, 0) + 1
        self.constant = {
            n.name
            for n in self.nodes
            if n.op_type in _ALL_INPUTS and not self._floats.issuperset(filter(None, n.input))
        }

    def inputs(self, node: "onnx.NodeProto") -> tuple[str, ...]:
        data = node.input if node.op_type in (*_ALL_INPUTS, "MatMul") else node.input[:1]
        return tuple(t for t in data if t in self._floats)

    def outputs(self, node: "onnx.NodeProto") -> tuple[str, ...]:
        return tuple(t for t in node.output if t in self._floats)

    def operators(self, found: tuple[Layer, ...]) -> Iterator[Operator]:
        layer_of = {layer.node: layer.name for layer in found}
        for node in self.nodes:
            if node.name not in self.constant:
                yield Operator(node.name, layer_of.get(node.name), self.inputs(node), self.outputs(node))

    def is_forked(self, tensor: str) -> bool:
        return self._n_readers[tensor] > 1 or tensor in self._results
