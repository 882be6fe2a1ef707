"""What canonical knob values say of each layer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np

from spaces.candidate import StageValue
from spaces.quantization.formats.base import WeightFormat
from spaces.quantization.plan.network import Network
from spaces.quantization.plan.plan import Settings
from spaces.quantization.plan.source import Source
from spaces.quantization.weight_formats import format_with, has_own_format


def as_integers(source: Source, settings: Settings) -> Settings:
    """Returns settings in which formats of their own are integers of about as many bits."""
    axes = {layer.name: layer.weight_axis_out for layer in source.network.layers}
    widths = dict(settings.weight_bits)
    for name, form in settings.formats.items():
        weight = source.weights[name]
        widths[name] = int(np.clip(round(8 * form.n_bytes(weight.shape, axes[name]) / weight.size), 2, 8))
    return replace(settings, weight_bits=widths, formats={})


def kept_float(network: Network, chosen: Mapping[str, StageValue]) -> set[str]:
    """Returns the names of the layers that are kept float."""
    kept = set(cast(tuple[str, ...], chosen["keep_float"]))
    return kept | network.ends if chosen["mixed_precision"] else kept


def settings_of(
    network: Network, chosen: Mapping[str, StageValue], formats: Mapping[str, WeightFormat]
) -> Settings:
    """Returns the settings of canonical values.

    Args:
        network: The quantizable nodes and tensors.
        chosen: Canonical values.
        formats: Formats of weights, by name.
    """
    kept = kept_float(network, chosen)
    quantized = [name for name in network.names if name not in kept]
    bits = chosen["weight_bits"]
    widths: dict[str, Any] = dict(bits) if isinstance(bits, dict) else dict.fromkeys(quantized, bits)
    ends = network.ends if chosen["ends_8_bit"] else frozenset()
    widths |= {name: max(cast(int, widths[name]), 8) for name in ends.intersection(quantized)}
    own: dict[str, WeightFormat] = {}
    if has_own_format(chosen):
        form = formats[str(chosen["weight_format"])]
        own = {name: format_with(form, chosen, cast(int, widths[name])) for name in quantized}
    return Settings(
        scheme=str(chosen["scheme"]),
        clipping=str(chosen["clipping"]),
        percentile=float(cast(float, chosen["percentile"])),
        per_channel=chosen["granularity"] == "channel",
        weight_bits={name: cast(int, widths[name]) for name in quantized},
        activation_bits=cast(int, chosen["activation_bits"]),
        activation_type=str(chosen["activation_type"]),
        weight_type=str(chosen["weight_type"]),
        format=str(chosen["format"]),
        reduce_range=bool(chosen["reduce_range"]),
        activation_matmuls=bool(chosen["activation_matmuls"]),
        rounding=str(chosen["rounding"]),
        rounding_steps=cast(int, chosen["rounding_steps"]),
        network_steps=cast(int, chosen["network_steps"]),
        wide_inputs=frozenset(layer.input for layer in network.layers if layer.name in ends),
        formats={name: form for name, form in own.items() if name not in ends},
        rounds_activations=chosen["precision"] != "weights_only",
    )
