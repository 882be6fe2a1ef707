"""The int32 biases of a quantized graph: scale of the bias = scale of the input * scale of the weight."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaces.models.layers import QUANTIZABLE
from spaces.quantization.plan.bias_correction import bias_name
from spaces.quantization.plan.plan import Plan
from spaces.quantization.plan.source import Source
from spaces.quantization.schemes.integers import bias_integers

if TYPE_CHECKING:
    import onnx

# Positions of the input's scale, the weight's scale and the int32 bias among the inputs of an operator.
_QOPERATORS = {"QLinearConv": (1, 4, 8), "QGemm": (1, 4, 6)}


@dataclass(frozen=True)
class Bias:
    """One int32 bias.

    Attributes:
        name: Name of the float bias.
        input: Name of the layer's input activation.
        layer: Name of the layer.
        beta: Attribute `beta` of a Gemm, else 1.
    """

    name: str
    input: str
    layer: str
    beta: float


@dataclass(frozen=True)
class Biases:
    """All int32 biases of a graph, which are computed in one vectorized step."""

    rows: tuple[Bias, ...]

    def contents(
        self, plan: Plan, values: Mapping[str, NDArray[np.float32]]
    ) -> tuple[dict[str, bytes], dict[str, bytes], int]:
        """Returns the integers and the scales of each bias as bytes, and the largest absolute integer."""
        steps = {
            b.name: plan.activations[b.input].scale * plan.weights[b.layer].scale * np.float32(b.beta)
            for b in self.rows
        }
        ends = np.cumsum([0, *(values[name].size for name in steps)]).tolist()
        flat, floats = np.empty((2, ends[-1]), np.float32)
        for (name, step), start, end in zip(steps.items(), ends, ends[1:], strict=False):
            flat[start:end].reshape(values[name].shape)[...] = step
            floats[start:end] = values[name].ravel()
        integers = bias_integers(floats, flat)
        data = integers.tobytes()
        found = {
            name: data[4 * start : 4 * end] for name, start, end in zip(steps, ends, ends[1:], strict=False)
        }
        largest = int(np.abs(integers, dtype=np.float64).max(initial=0.0))
        return found, {name: step.tobytes() for name, step in steps.items()}, largest


def int32_biases(graph: "onnx.GraphProto", source: Source, of_scale: Mapping[str, str]) -> Biases:
    """Finds the input and the layer of each int32 bias in the tool's graph.

    Args:
        graph: The graph that the tool has made.
        source: The float model.
        of_scale: Name of a scale's initializer to the name of its tensor or layer.

    Raises:
        KeyError: The scale of a bias is missing in `of_scale`.
    """
    betas = _betas(source)
    makers = {output: node for node in graph.node for output in node.output}
    biases = {f"{bias_name(layer)}_quantized": bias_name(layer) for layer in source.network.layers}
    names = (_scales_and_bias(node, makers) for node in graph.node)
    return Biases(
        tuple(
            Bias(biases[bias], of_scale[x], of_scale[weight], betas.get(biases[bias], 1.0))
            for x, weight, bias in filter(None, names)
            if bias in biases
        )
    )


def _scales_and_bias(
    node: "onnx.NodeProto", makers: Mapping[str, "onnx.NodeProto"]
) -> tuple[str, str, str] | None:
    """Returns the names of input scale, weight scale and int32 bias of a layer; None for other nodes."""
    if node.op_type in _QOPERATORS:
        x, weight, bias = _QOPERATORS[node.op_type]
        return (node.input[x], node.input[weight], node.input[bias]) if len(node.input) > bias else None
    if node.op_type not in QUANTIZABLE or len(node.input) < 3:
        return None
    before = [makers[tensor] for tensor in node.input if tensor in makers]
    if [maker.op_type for maker in before] != ["DequantizeLinear"] * 3:
        return None
    return before[0].input[1], before[1].input[1], before[2].input[0]


def _betas(source: Source) -> dict[str, float]:
    """Returns, by bias name, the `beta` of Gemms that could not be folded into the bias."""
    gemms = [n for n in source.artifact.proto().graph.node if n.op_type == "Gemm" and len(n.input) > 2]
    return {node.input[2]: a.f for node in gemms for a in node.attribute if a.name == "beta"}
