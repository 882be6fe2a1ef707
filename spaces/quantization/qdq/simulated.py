"""Files whose arithmetic is float: weights in formats of their own, activations of widths without an integer kernel, or of no width.

::

    x ──Clip──QuantizeLinear──DequantizeLinear──> layer <──DequantizeLinear── integer weight

Only inputs of layers are rounded: with float arithmetic, rounding others would cost accuracy and save nothing. The Clip makes an 8-bit
type hold no more than the integers of the width.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaces.quantization.formats.base import Packed
from spaces.quantization.formats.onnx_weights import with_packed_weights
from spaces.quantization.formats.stored import record_simulated
from spaces.quantization.plan.bias_correction import set_biases
from spaces.quantization.plan.network import Network
from spaces.quantization.plan.plan import Plan, Settings
from spaces.quantization.plan.prepare import with_opset
from spaces.quantization.plan.source import Source
from spaces.quantization.qdq.ort_adapter import OPSET_OF_ALL_WIDTHS
from spaces.quantization.qdq.recurrent_weights import dequantize_weight
from spaces.quantization.schemes.integers import stored_zero_point
from spaces.quantization.schemes.scheme import Grid

if TYPE_CHECKING:
    import onnx

STORED_BITS = 8  # of activations in the file, at least
SIMULATED_INPUTS = "activations of {bits} bits have no integer kernel: the file computes with exactly these values in float (simulated), and gets no latency"
FLOAT_ARITHMETIC = (
    "weight_format={form}: the file stores integers in ONNX's types and multiplies floats, except where onnxruntime has a MatMul of few bits; its latency is that of "
    "this file, not of a kernel for the format"
)
SIMULATED_WEIGHTS = (
    "weight_format={form} has no kernel: the file computes with exactly the weights that its packed form decodes to, in float (simulated), and gets "
    "no latency"
)


def simulated_model(
    source: Source,
    plan: Plan,
    settings: Settings,
    biases: Mapping[str, NDArray[np.float32]] | None,
    packed: Mapping[str, Packed],
) -> bytes:
    """Returns the serialized model.

    Args:
        source: The float model, or one with weights on their grids.
        plan: The grids.
        settings: The knobs.
        biases: Biases that replace those of the float model; None to keep these.
        packed: Weights in formats of their own, by layer name.
    """
    from onnxruntime.quantization.onnx_model import ONNXModel

    proto = source.artifact.proto()
    if biases is not None:
        set_biases(proto, source.network.layers, biases)
    if packed or any(grid.stored_bits == 4 for grid in plan.weights.values()):
        proto = with_opset(proto, OPSET_OF_ALL_WIDTHS)
    if packed:
        proto = with_packed_weights(proto, packed)
    del proto.graph.value_info[:]
    _round_weights(proto, source.network, plan, settings)
    if settings.rounds_activations:
        _round_inputs(proto, source.network, plan, settings)
    model = ONNXModel(proto)
    model.clean_initializers()
    model.topological_sort()
    return bytes(model.model.SerializeToString(deterministic=True))


def simulation_notes(settings: Settings, packed: Mapping[str, Packed]) -> list[str]:
    """Returns what the file only simulates or computes in float, a sentence for each."""
    forms = sorted({p.format.name for p in packed.values() if p.format.on_grid(p) is None})
    stored = sorted({p.format.name for p in packed.values()}.difference(forms))
    narrow = settings.rounds_activations and settings.activation_bits < 8
    return [
        *(SIMULATED_WEIGHTS.format(form=form) for form in forms),
        *(FLOAT_ARITHMETIC.format(form=form) for form in stored),
        *([SIMULATED_INPUTS.format(bits=settings.activation_bits)] if narrow else []),
    ]


def _round_weights(proto: "onnx.ModelProto", network: Network, plan: Plan, settings: Settings) -> None:
    floats = {i.name: i for i in proto.graph.initializer}
    nodes = {node.name: node for node in proto.graph.node}
    for layer in network.layers:
        if layer.name in plan.weights:
            dequantize_weight(proto, nodes[layer.node], layer, floats, plan.weights[layer.name], settings)


def _round_inputs(proto: "onnx.ModelProto", network: Network, plan: Plan, settings: Settings) -> None:
    nodes = {node.name: node for node in proto.graph.node}
    made, narrow = dict[str, str](), dict[str, str]()
    for layer in network.layers:
        if layer.name not in settings.weight_bits or layer.name in network.recurrent:
            continue
        grid = plan.activations[layer.input]
        if layer.input not in made:
            made[layer.input] = _rounded(proto, layer.input, grid, settings)
        nodes[layer.node].input[0] = made[layer.input]
        if grid.bits < STORED_BITS:
            narrow[layer.name] = f"activation_bits={grid.bits}"
    if narrow:
        record_simulated(proto, narrow)


def _rounded(proto: "onnx.ModelProto", tensor: str, grid: Grid, settings: Settings) -> str:
    """Adds the nodes that round an activation; returns the name of the result."""
    from onnx import helper, numpy_helper

    def constant(part: str, value: NDArray[np.generic]) -> str:
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"{tensor}_{part}"))
        return f"{tensor}_{part}"

    def node(op: str, inputs: list[str], output: str) -> str:
        proto.graph.node.append(helper.make_node(op, inputs, [output], f"{tensor}_{op}"))
        return output

    low, high = -(2 ** (grid.bits - 1)), 2 ** (grid.bits - 1) - 1
    clipped = tensor
    if grid.bits < STORED_BITS:
        ends = [
            constant(part, ((end - grid.zero_point) * grid.scale).astype(np.float32))
            for part, end in (("low", low), ("high", high))
        ]
        clipped = node("Clip", [tensor, *ends], f"{tensor}_clipped")
    unsigned = settings.activation_type == "unsigned"
    kind = np.dtype(
        f"{'u' if unsigned else ''}int{max(STORED_BITS, grid.bits)}"
    )  # onnxruntime 1.31's optimizer refuses 4-bit types here
    zero = constant("zero_point", stored_zero_point(grid, settings.activation_type).astype(kind))
    scale = constant("scale", grid.scale)
    integers = node("QuantizeLinear", [clipped, scale, zero], f"{tensor}_quantized")
    return node("DequantizeLinear", [integers, scale, zero], f"{tensor}_dequantized")
