"""Quantized forms of a random network, as the quantize stage writes them, with random ranges."""

from dataclasses import dataclass

import numpy as np

from evaluators.profile.sketch import Random
from spaces.quantization.plan.network import Network, network_of
from spaces.quantization.plan.plan import Plan, Settings
from spaces.quantization.plan.prepare import prepared
from spaces.quantization.qdq.ort_adapter import quantized_model
from spaces.quantization.schemes.scheme import Grid
from spaces.stages.artifact import Artifact


@dataclass(frozen=True)
class Form:
    """One way to store a quantized network; see the quantize stage's knobs of the same names.

    Attributes:
        per_channel: One weight scale for each output channel.
        activation_type: `unsigned` or `signed`.
        activation_bits: 8 or 16.
        weight_bits: 8 or 4.
        scheme: `asymmetric`, or one that keeps the activation functions as nodes (`symmetric`).
        float_ends: Whether the first and the last layer stay float.
    """

    per_channel: bool = True
    activation_type: str = "unsigned"
    activation_bits: int = 8
    weight_bits: int = 8
    scheme: str = "asymmetric"
    float_ends: bool = False


# The forms of int8 candidates, and their relative frequencies.
FORMS: tuple[tuple[Form, float], ...] = (
    (Form(), 5),
    (Form(per_channel=False), 2),
    (Form(float_ends=True), 1),
    (Form(activation_type="signed"), 1),
    (Form(scheme="symmetric"), 1),
)


def random_form(random: Random) -> Form:
    """Draws a form."""
    weights = np.array([weight for _, weight in FORMS])
    return FORMS[int(random.choice(len(FORMS), p=weights / weights.sum()))][0]


def quantized(artifact: Artifact, form: Form, random: Random) -> Artifact:
    """Returns the network in a quantized form, with random ranges, so that its outputs are meaningless.

    Raises:
        StageError: The network has no layer to quantize.
    """
    proto = prepared(artifact)
    network = network_of(proto)
    kept = network.ends if form.float_ends else frozenset()
    bits = {name: form.weight_bits for name in network.names if name not in kept}
    settings = Settings(
        form.scheme,
        "max",
        100.0,
        form.per_channel,
        bits,
        form.activation_bits,
        form.activation_type,
        "signed",
        "qdq",
        False,
    )
    shapes = {i.name: tuple(i.dims) for i in proto.graph.initializer}
    return Artifact.onnx(
        quantized_model(proto, network, _plan(network, shapes, form, bits, random), settings), artifact.input
    )


def _plan(
    network: Network, shapes: dict[str, tuple[int, ...]], form: Form, bits: dict[str, int], random: Random
) -> Plan:
    rectified = set(network.follows.values())
    activations = {t: _activation_grid(form, t in rectified, random) for t in network.tensors}
    activations |= {before: activations[_source(network, before)] for before in network.follows}
    weights = {}
    for layer in network.layers:
        if layer.name in bits:
            size = shapes[layer.name][layer.weight_axis_out]
            scales = np.full(size if form.per_channel else (), 4 / 2**form.weight_bits, np.float32)
            axis = layer.weight_axis_out if form.per_channel else None
            zero = np.zeros(scales.shape, np.int64)
            if not form.per_channel and form.scheme == "asymmetric":
                zero += int(random.integers(-20, 21))
            weights[layer.name] = Grid(scales, zero, form.weight_bits, axis)
    return Plan(activations, weights, network.float_nodes(bits))


def _source(network: Network, tensor: str) -> str:
    while tensor in network.follows:
        tensor = network.follows[tensor]
    return tensor


def _activation_grid(form: Form, rectified: bool, random: Random) -> Grid:
    """Draws quantization parameters with a scale for each tensor, as in real files: equal scales let the runtime skip work."""
    scale = np.float32(random.uniform(4, 12) / 2**form.activation_bits)
    lowest = -(2 ** (form.activation_bits - 1))
    zero = (
        0
        if form.scheme != "asymmetric"
        else lowest
        if rectified
        else int(random.integers(lowest // 2, -lowest // 2))
    )
    return Grid(np.asarray(scale, np.float32), np.asarray(zero, np.int64), form.activation_bits)
