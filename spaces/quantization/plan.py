"""From statistics and knob values to the grid of every tensor."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spaces.cache import digest_of
from spaces.errors import StageError, unknown_name
from spaces.quantization.clipping import ClipContext, Histogram
from spaces.quantization.clippings import clippings
from spaces.quantization.network import Network
from spaces.quantization.schemes import Grid, make_grid, scheme_of
from spaces.quantization.statistics import Statistics
from spaces.stage import StageContext

Weights = Mapping[str, NDArray[np.float32]]

# onnxruntime adds the int32 bias to int32 sums: a quarter of the range leaves the sums their share.
LARGEST_BIAS = 2.0**29


@dataclass(frozen=True)
class Settings:
    """Canonical knob values, except those that act on the float model.

    Attributes:
        scheme: Name of the scheme.
        clipping: Name of the clipping method.
        percentile: Its percentile, in per cent.
        per_channel: Whether each output channel's weights have a scale of their own.
        weight_bits: Layer name to bits, of the layers that are quantized.
        activation_bits: Bits of the activations.
        activation_type: `unsigned` or `signed`: how activations are stored.
        weight_type: The same for weights.
        format: `qdq` or `qoperator`.
        reduce_range: Whether 8-bit weights use 7 bits.
    """

    scheme: str
    clipping: str
    percentile: float
    per_channel: bool
    weight_bits: Mapping[str, int]
    activation_bits: int
    activation_type: str
    weight_type: str
    format: str
    reduce_range: bool


@dataclass(frozen=True)
class Plan:
    """The grid of every tensor that is quantized.

    Attributes:
        activations: Tensor name to grid.
        weights: Layer name to grid.
        float_nodes: Names of the nodes that stay float.
    """

    activations: Mapping[str, Grid]
    weights: Mapping[str, Grid]
    float_nodes: tuple[str, ...]


def make_plan(
    network: Network,
    weights: Weights,
    biases: Weights,
    statistics: Statistics,
    settings: Settings,
    context: StageContext,
) -> Plan:
    """Decides the grid of every tensor.

    Args:
        network: The graph's facts.
        weights: Layer name to float weight.
        biases: Bias name to float bias.
        statistics: Of the same network.
        settings: The knobs.
        context: For the cache.
    """
    spans = clipped_ranges(statistics, settings, context)
    rule = scheme_of(settings.scheme).activations
    grids = {t: make_grid(rule, *span, settings.activation_bits) for t, span in spans.items()}
    grids |= {before: grids[_source(network, before)] for before in network.follows}
    return Plan(
        activations=grids,
        weights=_weight_grids(network, weights, biases, grids, settings),
        float_nodes=network.float_nodes(settings.weight_bits),
    )


def _source(network: Network, tensor: str) -> str:
    while tensor in network.follows:
        tensor = network.follows[tensor]
    return tensor


def clipped_ranges(
    statistics: Statistics, settings: Settings, context: StageContext
) -> dict[str, tuple[float, float]]:
    """Returns the real range that each activation's grid should cover."""
    if settings.clipping not in clippings():
        raise StageError(unknown_name("clipping", settings.clipping, clippings(), "quantize.clipping"))
    clipping = clippings()[settings.clipping]
    clip = ClipContext(scheme_of(settings.scheme).activations, settings.activation_bits, settings.percentile)
    ranges = statistics.ranges()
    if not clipping.needs_histogram:
        flat = np.zeros(0, np.int64)
        return {t: clipping.method(Histogram(*span, flat, 0), clip) for t, span in ranges.items()}

    def build() -> dict[str, NDArray[np.float64]]:
        found = [clipping.method(h, clip) for h in statistics.histograms().values()]
        return {"ranges": np.array(found, np.float64)}

    percentile = settings.percentile if settings.clipping == "percentile" else None
    key = digest_of(statistics.key, settings.clipping, percentile, settings.scheme, settings.activation_bits)
    found = context.cache.arrays(f"clipped-{key}", build)["ranges"].tolist()
    return {t: (low, high) for t, (low, high) in zip(ranges, found, strict=True)}


def _weight_grids(
    network: Network, weights: Weights, biases: Weights, activations: Mapping[str, Grid], settings: Settings
) -> dict[str, Grid]:
    least: dict[str, NDArray[np.float64]] = {}
    for layer in network.layers:
        if layer.name in settings.weight_bits and layer.bias is not None and layer.bias in biases:
            scale = activations[layer.input].scale.astype(np.float64)
            needed = np.abs(biases[layer.bias].astype(np.float64)) / (scale * LARGEST_BIAS)
            least[layer.name] = np.maximum(needed, least.get(layer.name, 0.0))
    axes = {layer.name: layer.weight_axis_out for layer in network.layers}
    return {
        name: _weight_grid(weights[name], bits, axes[name], least.get(name, np.zeros(1)), settings)
        for name, bits in settings.weight_bits.items()
    }


def _weight_grid(
    weight: NDArray[np.float32], bits: int, axis: int, least: NDArray[np.float64], settings: Settings
) -> Grid:
    scheme = scheme_of(settings.scheme)
    rule = scheme.channel_weights if settings.per_channel else scheme.weights
    reduced = settings.reduce_range and bits == 8
    others = tuple(i for i in range(weight.ndim) if i != axis) if settings.per_channel else None
    low, high = np.asarray(weight.min(axis=others)), np.asarray(weight.max(axis=others))
    if (
        least.shape != low.shape
    ):  # one scale, no bias, or a grouped ConvTranspose with a bias longer than its axis
        least = np.full(low.shape, least.max())

    def grid_of(share: NDArray[np.float64]) -> Grid:
        return make_grid(
            rule,
            low * share,
            high * share,
            bits,
            reduced=reduced,
            least_scale=least,
            axis=axis if settings.per_channel else None,
        )

    share_of = clippings()[settings.clipping].weight_share
    if share_of is None or reduced:  # what is cut off would use the bit that a reduced range spares
        return grid_of(np.ones(()))
    return grid_of(share_of(weight, grid_of))
