"""The part of the knob values that decides the graph of the quantized file; the rest changes only numbers."""

from collections.abc import Mapping
from typing import cast

from spaces.candidate import StageValue
from spaces.quantization.canonical import Situation, Values
from spaces.quantization.plan.bias_correction import is_correctable
from spaces.quantization.plan.network import Network
from spaces.quantization.schemes.scheme import SCHEMES, scheme_of

# Knobs that change only numbers in the file.
NUMBERS = (
    "calibration_images",
    "degraded_share",
    "clipping",
    "percentile",
    "reduce_range",
    "rounding",
    "rounding_steps",
    "network_steps",
    "code_tuning_steps",
    "weight_importance",
    "gelu_limit",
)


def structure(situation: Situation, values: Mapping[str, StageValue]) -> Values:
    """Returns the part of canonical values that decides nodes, shapes, types and sizes of the file.

    A value that affects the graph only in part is replaced by the first one that gives the same graph.

    Args:
        situation: Network and data.
        values: Canonical values.
    """
    network = situation.network
    found = {knob: value for knob, value in values.items() if knob not in NUMBERS}
    keeps = scheme_of(str(values["scheme"])).keeps_activations and bool(network.follows)
    found["scheme"] = next(name for name, row in SCHEMES.items() if row.keeps_activations == keeps)
    found["cross_layer_equalization"] = situation.clips and values["cross_layer_equalization"]
    found["bias_correction"] = values["bias_correction"] and _adds_biases(network, values)
    return found


def _adds_biases(network: Network, values: Mapping[str, StageValue]) -> bool:
    kept = set(cast(tuple[str, ...], values["keep_float"]))
    if values["mixed_precision"]:
        kept |= network.ends
    return any(x.bias is None and is_correctable(x) and x.name not in kept for x in network.layers)
