"""Computes the quantization parameters (grid) of every tensor from statistics and knob values."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spaces.digest import digest_of
from spaces.errors import StageError, unknown_name
from spaces.quantization.calibration.clipping.base import ClipContext, Histogram
from spaces.quantization.calibration.clipping.methods import clippings
from spaces.quantization.calibration.statistics import Statistics
from spaces.quantization.formats.base import WeightFormat
from spaces.quantization.plan.network import Network
from spaces.quantization.plan.source import Source
from spaces.quantization.plan.weight_grids import WeightGrids, WeightRule
from spaces.quantization.schemes.scheme import Grid, make_grid, scheme_of
from spaces.stages.stage import StageContext

Spans = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Settings:
    """Canonical knob values, except those that act on the float model.

    Attributes:
        scheme: Name of the scheme.
        clipping: Name of the clipping method.
        percentile: Percentile of the clipping method, in per cent.
        per_channel: Whether each output channel's weights have their own scale.
        weight_bits: Layer name to bits, for the quantized layers.
        activation_bits: Bits of the activations.
        activation_type: Storage type of activations, `unsigned` or `signed`.
        weight_type: Storage type of weights, likewise.
        format: `qdq` or `qoperator`.
        reduce_range: Whether 8-bit weights use 7 bits.
        activation_matmuls: Whether MatMul nodes of two activations are quantized.
        rounding: Name of the method that rounds weights.
        rounding_steps: Gradient steps of learned rounding for each part of the network.
        network_steps: Gradient steps of tuning the quantized network as a whole.
        wide_inputs: Names of the activations that have at least 8 bits.
        formats: Layer name to the format of its weight, for those that are not integers on a grid of their own.
        rounds_activations: Whether activations are rounded.
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
    activation_matmuls: bool = False
    rounding: str = "nearest"
    rounding_steps: int = 0
    network_steps: int = 0
    wide_inputs: frozenset[str] = frozenset()
    formats: Mapping[str, WeightFormat] = field(default_factory=dict)
    rounds_activations: bool = True

    @property
    def layers_only(self) -> bool:
        """Whether only layers read quantized activations, because no operator has an integer kernel that others would feed."""
        return self.activation_bits < 8 or bool(self.formats) or not self.rounds_activations

    @property
    def grid_bits(self) -> dict[str, int]:
        """Layer name to bits, for the layers whose weights are on a grid of their own."""
        return {name: bits for name, bits in self.weight_bits.items() if name not in self.formats}

    def bits_of(self, tensor: str) -> int:
        """Returns the bits of an activation."""
        return max(self.activation_bits, 8) if tensor in self.wide_inputs else self.activation_bits

    def weight_rule(self, bits: int) -> WeightRule:
        """Returns the rule for the grid of a weight with this number of bits."""
        scheme = scheme_of(self.scheme)
        reduced = self.reduce_range and bits == 8
        clipping = (
            self.clipping if self.rounding == "nearest" else "mse"
        )  # what is learned is the rounding on a given scale
        share = clippings()[clipping].weight_share
        return WeightRule(
            rule=scheme.channel_weights if self.per_channel else scheme.weights,
            per_channel=self.per_channel,
            bits=bits,
            reduced=reduced,
            # No clipping with a reduced range: clipped values would use the spared bit.
            share_of=None if reduced else share,
        )


@dataclass(frozen=True)
class Plan:
    """The grids (scale, zero point, bits) of all quantized tensors.

    Attributes:
        activations: Tensor name to grid.
        weights: Layer name to grid.
        float_nodes: Names of the nodes that stay float.
    """

    activations: Mapping[str, Grid]
    weights: Mapping[str, Grid]
    float_nodes: tuple[str, ...]


def make_plan(source: Source, spans: Spans, settings: Settings, grids: WeightGrids) -> Plan:
    """Computes the grid of every tensor.

    Args:
        source: The float model.
        spans: Tensor name to the real range that its grid should cover.
        settings: The knobs.
        grids: Cache of weight grids.
    """
    network = source.network
    activations = _activation_grids(network, spans, settings)
    on_grids = settings.grid_bits
    rules = {bits: settings.weight_rule(bits) for bits in set(on_grids.values())}
    weights = grids.grids(source, on_grids, rules, activations) if on_grids else {}
    floats = network.float_nodes(settings.weight_bits, settings.activation_matmuls)
    return Plan(activations, weights, floats)


def _activation_grids(network: Network, spans: Spans, settings: Settings) -> dict[str, Grid]:
    inputs = {layer.input for layer in network.layers if layer.name in settings.weight_bits}
    grids = dict[str, Grid]()
    for bits in {settings.bits_of(tensor) for tensor in spans}:
        names = [
            t for t in spans if settings.bits_of(t) == bits and (t in inputs or not settings.layers_only)
        ]
        ends = np.array([spans[t] for t in names], np.float64).reshape(-1, 2)
        rows = make_grid(scheme_of(settings.scheme).activations, ends[:, 0], ends[:, 1], bits)
        grids |= {t: Grid(rows.scale[i, ...], rows.zero_point[i, ...], bits) for i, t in enumerate(names)}
    sources = {before: _source(network, before) for before in network.follows}
    return grids | {before: grids[source] for before, source in sources.items() if source in grids}


def _source(network: Network, tensor: str) -> str:
    while tensor in network.follows:
        tensor = network.follows[tensor]
    return tensor


def clipped_ranges(statistics: Statistics, settings: Settings, context: StageContext) -> Spans:
    """Returns, by tensor name, the real range that the activation's grid should cover."""
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
