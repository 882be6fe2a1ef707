"""LSTM, GRU and RNN: onnxruntime has no such operator between quantized activations, so only their weights are quantized."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spaces.models.layers import RECURRENT, Layer, recurrent_layers
from spaces.quantization.plan.left_float import WEIGHTS_ONLY, weight_problem

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Recurrent:
    """The recurrent nodes of a graph.

    Attributes:
        layers: Their weights that can be quantized, two a node.
        float_layers: Their other weights.
        reasons: Node to the reason why its arithmetic, or all of it, stays float.
    """

    layers: tuple[Layer, ...]
    float_layers: tuple[Layer, ...]
    reasons: Mapping[str, str]


def recurrent_of(
    proto: "onnx.ModelProto", initializers: Mapping[str, "onnx.TensorProto"], others: Collection[str]
) -> Recurrent:
    """Finds the recurrent nodes.

    Args:
        proto: A prepared model.
        initializers: Its initializers by name.
        others: Names of the other layers.
    """
    nodes = [n for n in proto.graph.node if n.op_type in RECURRENT and n.domain in ("", "ai.onnx")]
    problems = {}
    for node in nodes:
        if not all(name in initializers for name in node.input[1:3]):
            problems[node.name] = "one of its weights is computed"
    found = recurrent_layers(proto)
    for layer in found:
        problem = weight_problem(layer, initializers[layer.name])
        if problem is None and layer.name in others:
            problem = "a layer of another kind reads its weight, too"
        if problem:
            problems.setdefault(layer.node, problem)
    whole = {node.name: WEIGHTS_ONLY.format(op=node.op_type) for node in nodes}
    stored = tuple(layer for layer in found if layer.node not in problems)
    return Recurrent(stored, tuple(x for x in found if x.node in problems), whole | problems)
