"""The quantizable nodes and tensors of a float ONNX graph: read once per network, used by all candidates."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from spaces.errors import StageError
from spaces.models.layers import QUANTIZABLE, RECURRENT, Layer, layers
from spaces.models.onnx.subgraphs import nodes_inside
from spaces.quantization.plan.left_float import (
    CONSTANT_FIRST,
    CONSTANT_OPERAND,
    NO_FLOAT_OPERAND,
    TABLE,
    layer_problem,
    notes,
)
from spaces.quantization.plan.recurrent import recurrent_of

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
        is_product: Whether it is a MatMul of two activations.
        inputs: Names of its input activations.
        outputs: Names of its output activations.
    """

    name: str
    layer: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    is_product: bool = False


@dataclass(frozen=True)
class Network:
    """The quantizable parts of a graph.

    Attributes:
        layers: Layers that can be quantized, in topological order. Of LSTM, GRU and RNN only the weights are.
        tensors: Names of the activations that may be quantized.
        follows: Tensor that only a ReLU or Clip reads -> output of the ReLU or Clip, whose range it gets.
        operators: All nodes that can be quantized, in topological order.
        fixed: Nodes that are never quantized: an operand of an Add is a constant (rounding a MatMul's bias to
            8 bits would cost accuracy and save nothing), the weight or bias of a layer is computed, or an
            integer kernel, its arithmetic or the calibration cannot take the node.
        forked: ReLU and Clip nodes whose input has other readers, so that they cannot be folded.
        left_float: Node that stays float in every candidate -> reason; nodes without float values are left out.
        float_layers: Names of the layers among these.
        shares: Names of the activations that are shares of 1 (outputs of a Softmax) and that a MatMul of two
            activations reads.
    """

    layers: tuple[Layer, ...]
    tensors: tuple[str, ...]
    follows: Mapping[str, str]
    operators: tuple[Operator, ...]
    fixed: tuple[str, ...]
    forked: tuple[str, ...]
    left_float: Mapping[str, str] = field(default_factory=dict)
    float_layers: tuple[str, ...] = ()
    shares: frozenset[str] = frozenset()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the layers, each once, in topological order."""
        return tuple(dict.fromkeys(layer.name for layer in self.layers))

    @cached_property
    def ends(self) -> frozenset[str]:
        """Names of the weights of the first and the last layer."""
        nodes = {self.layers[0].node, self.layers[-1].node}
        return frozenset(layer.name for layer in self.layers if layer.node in nodes)

    @cached_property
    def recurrent(self) -> frozenset[str]:
        """Names of the weights of LSTM, GRU and RNN."""
        return frozenset(layer.name for layer in self.layers if layer.op_type in RECURRENT)

    @cached_property
    def products(self) -> tuple[str, ...]:
        """Names of the MatMul nodes of two activations."""
        return tuple(operator.name for operator in self.operators if operator.is_product)

    def float_nodes(self, quantized: Collection[str], products: bool = False) -> tuple[str, ...]:
        """Returns the names of the nodes that stay float if exactly these layers are quantized.

        An operator without weights is quantized if all its inputs are integer anyway: outputs of a quantized
        operator, or inputs of a quantized layer. Otherwise rounding would cost accuracy and save nothing.

        Args:
            quantized: Names of the quantized layers.
            products: Whether MatMul nodes of two activations are quantized.
        """
        integer = {x.input for x in self.layers if x.name in quantized and x.name not in self.recurrent}
        if products:
            integer.update(t for operator in self.operators if operator.is_product for t in operator.inputs)
        staying = list(self.fixed)
        for operator in self.operators:
            has_integer_inputs = bool(operator.inputs) and integer.issuperset(operator.inputs)
            if operator.is_product:
                has_integer_inputs = products
            if operator.layer in quantized if operator.layer else has_integer_inputs:
                integer.update(operator.outputs)
            else:
                staying.append(operator.name)
        return tuple(staying)


def network_of(proto: "onnx.ModelProto", unfit: Mapping[str, str] | None = None) -> Network:
    """Returns the quantizable parts of a prepared model.

    Args:
        proto: The model.
        unfit: Activation that calibration cannot take -> what is wrong with it.

    Raises:
        StageError: The model has no layer that can be quantized.
    """
    graph = _Graph(proto, unfit or {})
    fixed = graph.fixed()
    constant = tuple(layer for layer in graph.layers.values() if layer.node not in fixed)
    quantizable = graph.in_order((*constant, *graph.recurrent.layers))
    if not quantizable:
        by_node = {layer.node: fixed[layer.node] for layer in graph.layers.values()}
        by_layer = notes({**by_node, **graph.recurrent.reasons})
        raise StageError(
            "; ".join(
                (
                    "the model has no Conv, ConvTranspose, Gemm or MatMul with a float weight initializer, "
                    "and no LSTM, GRU or RNN with two",
                    *by_layer,
                )
            )
        )
    follows = {
        node.input[0]: node.output[0]
        for node in graph.nodes
        if node.op_type in ACTIVATIONS
        and node.name not in fixed
        and graph.inputs(node)  # a Clip of whole numbers has none
        and not graph.is_forked(node.input[0])
    }
    operators = tuple(graph.operators(constant, fixed))
    touched = (t for operator in operators for t in (*operator.inputs, *operator.outputs))
    names = {layer.name for layer in quantizable}
    floats = (*(x for x in graph.layers.values() if x.node in fixed), *graph.recurrent.float_layers)
    read = {t for operator in operators if operator.is_product for t in operator.inputs}
    return Network(
        layers=quantizable,
        tensors=tuple(dict.fromkeys(t for t in touched if t not in follows)),
        follows=follows,
        operators=operators,
        fixed=tuple(sorted(fixed)),
        forked=tuple(n.name for n in graph.nodes if n.op_type in ACTIVATIONS and n.input[0] not in follows),
        left_float=graph.left_float(fixed),
        float_layers=tuple(dict.fromkeys(x.name for x in floats if x.name not in names)),
        shares=frozenset(o for n in graph.softmaxes() for o in n.output if o in read),
    )


class _Graph:
    def __init__(self, proto: "onnx.ModelProto", unfit: Mapping[str, str]) -> None:
        from onnx import TensorProto

        values = (*proto.graph.value_info, *proto.graph.input, *proto.graph.output)
        constants = {o for node in proto.graph.node if node.op_type == "Constant" for o in node.output}
        self._initializers = {i.name: i for i in proto.graph.initializer}
        self._constants = constants | self._initializers.keys()
        self._floats = {
            v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT
        } - self._constants
        self._all = list(proto.graph.node)
        self.nodes = [
            n for n in self._all if n.op_type in QUANTIZABLE + PASSING and n.domain in ("", "ai.onnx")
        ]
        self.layers = {layer.node: layer for layer in layers(proto)}
        self.recurrent = recurrent_of(proto, self._initializers, {x.name for x in self.layers.values()})
        self._unfit = unfit
        self._results = {o.name for o in proto.graph.output}
        self._n_readers = Counter(tensor for node in proto.graph.node for tensor in node.input)

    def fixed(self) -> dict[str, str]:
        """Returns the nodes that are never quantized, each with the reason."""
        found = ((node.name, self._problem(node)) for node in self.nodes)
        return {name: problem for name, problem in found if problem}

    def left_float(self, fixed: Mapping[str, str]) -> dict[str, str]:
        """Returns the nodes with float values that stay float, each with the reason, in topological order."""
        listed = {node.name for node in self.nodes}
        found = {}
        for node in self._all:
            if any(inner.op_type in QUANTIZABLE + RECURRENT for inner in nodes_inside(node)):
                found[node.name] = "layers in the subgraphs of If, Loop and Scan are not quantized"
                continue
            if node.op_type == "Gather" and self._is_table(node.input[0]):
                found[node.name] = TABLE
                continue
            if not any(t in self._floats for t in node.input) or not self.outputs(node):
                continue
            if node.op_type == "Identity":  # only `expose_subgraph_readers` leaves any
                continue
            if node.name in fixed:
                found[node.name] = fixed[node.name]
            elif node.name in self.recurrent.reasons:
                found[node.name] = self.recurrent.reasons[node.name]
            elif node.name not in listed:
                found[node.name] = f"{node.op_type} has no integer kernel that is used here"
        return found

    def _is_table(self, name: str) -> bool:
        """Whether a constant is a float table, such as that of an embedding."""
        from onnx import TensorProto

        table = self._initializers.get(name)
        return table is not None and table.data_type == TensorProto.FLOAT and len(table.dims) > 1

    def _problem(self, node: "onnx.NodeProto") -> str | None:
        layer = self.layers.get(node.name)
        if layer is not None:
            own = layer_problem(layer, node, self._initializers) or self._type_problem(node)
        else:
            own = self._operand_problem(node)
        return own or self._calibration_problem(node)

    def _type_problem(self, node: "onnx.NodeProto") -> str | None:
        unknown = [t for t in (node.input[0], node.output[0]) if t not in self._floats]
        return f"{unknown[0]!r} is no float32 activation" if unknown else None

    def _operand_problem(self, node: "onnx.NodeProto") -> str | None:
        if node.op_type in (*_ALL_INPUTS, "MatMul"):  # a MatMul of two activations is not a layer
            if self._floats.issuperset(node.input):
                return None
            if self._constants.isdisjoint(node.input):
                return NO_FLOAT_OPERAND
            return CONSTANT_FIRST if node.op_type == "MatMul" else CONSTANT_OPERAND
        return "its weight is computed" if node.op_type in QUANTIZABLE else None

    def _calibration_problem(self, node: "onnx.NodeProto") -> str | None:
        kinds = {
            self._unfit[t]: kind
            for kind, tensors in (("output", self.outputs(node)), ("input", self.inputs(node)))
            for t in tensors
            if t in self._unfit
        }
        return next((f"its {kind} {problem}" for problem, kind in kinds.items()), None)

    def inputs(self, node: "onnx.NodeProto") -> tuple[str, ...]:
        data = node.input if node.op_type in (*_ALL_INPUTS, "MatMul") else node.input[:1]
        return tuple(t for t in data if t in self._floats)

    def outputs(self, node: "onnx.NodeProto") -> tuple[str, ...]:
        return tuple(t for t in node.output if t in self._floats)

    def operators(self, constant: tuple[Layer, ...], fixed: Collection[str]) -> Iterator[Operator]:
        layer_of = {layer.node: layer.name for layer in constant}
        for node in self.nodes:
            if node.name not in fixed:
                layer = layer_of.get(node.name)
                is_product = node.op_type == "MatMul" and layer is None
                yield Operator(node.name, layer, self.inputs(node), self.outputs(node), is_product)

    def softmaxes(self) -> Iterator["onnx.NodeProto"]:
        """Yields the Softmax nodes."""
        return (n for n in self._all if n.op_type == "Softmax" and n.domain in ("", "ai.onnx"))

    def in_order(self, found: Sequence[Layer]) -> tuple[Layer, ...]:
        """Returns layers in the order of their nodes."""
        positions = {node.name: i for i, node in enumerate(self._all)}
        return tuple(sorted(found, key=lambda layer: positions[layer.node]))

    def is_forked(self, tensor: str) -> bool:
        return self._n_readers[tensor] > 1 or tensor in self._results
