"""Estimates a candidate's quantization noise from statistics of the float model, without any run.

Rounded weights and rounded or clipped activations are sources of noise. The power of each source is computed
from its grid and from statistics of the float model: the histogram of an activation; the error of a weight
with the mean and the mean square of each of its input channels. To first order the noise power at the output
is the sum of the sources' powers, each times its noise gain (`noise_gains.py`). Lin, Talathi and Annapureddy,
"Fixed Point Quantization of Deep Convolutional Networks" (arXiv 1511.06393, section 3), add relative noise
along a chain in this way, with equal gains.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spaces.models.layers import Layer
from spaces.quantization.calibration.clipping.base import Histogram
from spaces.quantization.calibration.statistics import Statistics
from spaces.quantization.plan.bias_correction import is_correctable
from spaces.quantization.plan.network import Network
from spaces.quantization.plan.plan import Plan
from spaces.quantization.plan.source import Source
from spaces.quantization.schemes.recent import Recent
from spaces.quantization.schemes.scheme import Grid
from spaces.quantization.sensitivity.noise_gains import noise_gains
from spaces.stages.stage import StageContext

Floats = NDArray[np.float64]

MAX_POWERS = 200_000  # cached noise powers of one tensor or weight with one grid
MAX_SUMS = 4_000  # cached sums over all tensors or all weights
MAX_SIGNALS = 4
MAX_DB = 120.0  # upper limit of signal-to-noise ratios


@dataclass(frozen=True)
class Planned:
    """A candidate with its grids.

    Attributes:
        source: The float model.
        plan: The grids.
        corrected: Whether bias correction compensates the mean errors of quantized weights.
    """

    source: Source
    plan: Plan
    corrected: bool


class Sensitivities:
    """Estimates the noise of candidates, with an LRU cache of the float models' statistics."""

    def __init__(self) -> None:
        self._signals: Recent[tuple[str, str, int], _Signals] = Recent(MAX_SIGNALS)

    def figures(
        self, candidates: Sequence[Planned | None], n_images: int, context: StageContext
    ) -> dict[str, Floats]:
        """Returns estimated signal-to-noise ratios in decibels, `(n,)` each, at most `MAX_DB`.

        Args:
            candidates: The candidates; None for the float model.
            n_images: Number of calibration examples for the statistics of the float model. More are better;
                the candidates' own ranges may come from other numbers of examples.
            context: Calibration data and cache.

        Returns:
            `propagated_sqnr_db`: at the network's output; `weights_sqnr_db` and `activations_sqnr_db`: the
                same, with noise from weights or activations alone; `worst_layer_sqnr_db`: the smallest ratio
                at the output of a layer,
            with noise from its weight alone.

        Raises:
            StageError: There is no calibration data, or an activation is not finite.
        """
        rows = [self._row(c, n_images, context) for c in candidates]
        columns = np.array(rows, np.float64).reshape(-1, 3).T
        both = columns[0] + columns[1]
        found = {
            "propagated_sqnr_db": both,
            "weights_sqnr_db": columns[0],
            "activations_sqnr_db": columns[1],
            "worst_layer_sqnr_db": columns[2],
        }
        return {
            name: -10 * np.log10(np.maximum(noise, 10 ** (-MAX_DB / 10))) for name, noise in found.items()
        }

    def _row(
        self, planned: Planned | None, n_images: int, context: StageContext
    ) -> tuple[float, float, float]:
        if planned is None or context.calibration is None:
            return 0.0, 0.0, 0.0
        source = planned.source
        key = (source.key, context.calibration.digest, n_images)
        signals = self._signals.get(key, lambda: _Signals(source, n_images, context))
        return signals.relative_noise(planned.plan, planned.corrected)


class _Signals:
    """Activation statistics and noise gains of one float model."""

    def __init__(self, source: Source, n_images: int, context: StageContext) -> None:
        statistics = Statistics(source.artifact, source.wanted, n_images, context)
        self._source = source
        self._histograms, self._powers = statistics.histograms(), statistics.second_moments()
        self._means, self._squares = statistics.means(), statistics.channel_second_moments()
        gains = noise_gains(source, lambda layer, error: self._error_powers(layer, error)[0], context)
        self._gains = dict(zip(source.network.tensors, gains["tensors"].tolist(), strict=True))
        layers = source.network.layers
        keys = [(layer.node, layer.name) for layer in layers]  # an LSTM has two weights
        self._layer_gains = dict(zip(keys, gains["layers"].tolist(), strict=True))
        self._layer_powers = {layer.node: self._power_after(layer) for layer in layers}
        self._noise: Recent[tuple[object, ...], float] = Recent(MAX_POWERS)
        self._layer_noise: Recent[tuple[object, ...], tuple[float, float]] = Recent(MAX_POWERS)
        self._sums: Recent[tuple[object, ...], tuple[float, float]] = Recent(MAX_SUMS)
        self._rounded: Recent[tuple[str, ...], tuple[str, ...]] = Recent(MAX_POWERS)

    def relative_noise(self, plan: Plan, corrected: bool) -> tuple[float, float, float]:
        """Returns relative noise powers: from weights and activations at the output; at the worst layer."""
        grids = plan.activations.values()
        steps = b"".join(part for grid in grids for part in (grid.scale.tobytes(), grid.zero_point.tobytes()))
        bits = frozenset(grid.bits for grid in grids)
        of_activations = (plan.float_nodes, bits, steps)
        of_weights = (corrected, *((name, *grid.key) for name, grid in plan.weights.items()))
        from_activations = self._sums.get(of_activations, lambda: (self._from_activations(plan), 0.0))[0]
        from_weights, worst = self._sums.get(of_weights, lambda: self._from_weights(plan, corrected))
        return from_weights, from_activations, worst

    def _from_activations(self, plan: Plan) -> float:
        tensors = self._rounded.get(plan.float_nodes, lambda: _rounded(self._source.network, plan))
        return float(
            sum(
                self._gains[t] * self._of_tensor(t, plan.activations[t])
                for t in tensors
                if t in plan.activations
            )
        )

    def _from_weights(self, plan: Plan, corrected: bool) -> tuple[float, float]:
        total, worst = 0.0, 0.0
        for layer in self._source.network.layers:
            if layer.name in plan.weights:
                noise = self._of_layer(layer, plan.weights[layer.name], corrected)
                total += self._layer_gains[layer.node, layer.name] * noise
                worst = max(worst, noise / self._layer_powers[layer.node])
        return total, worst

    def _of_tensor(self, tensor: str, grid: Grid) -> float:
        return self._noise.get((tensor, *grid.key), lambda: rounding_noise(self._histograms[tensor], grid))

    def _of_layer(self, layer: Layer, grid: Grid, corrected: bool) -> float:
        def build() -> tuple[float, float]:
            weight = self._source.weights[layer.name]
            return self._error_powers(layer, grid.dequantized(weight).astype(np.float64) - weight)

        return self._layer_noise.get((layer.node, layer.name, *grid.key), build)[int(corrected)]

    def _error_powers(self, layer: Layer, error: Floats) -> tuple[float, float]:
        """Returns a layer's mean squared output error from a weight error, without and with correction.

        Input values at different positions are assumed to be independent, apart from the mean of their
        channel.
        """
        if layer.input not in self._means or not is_correctable(layer):
            power = self._powers.get(layer.input, 1.0)
            plain = float(np.sum(error**2) * power / error.shape[layer.weight_axis_out])
            return plain, plain
        mean, square = self._means[layer.input], self._squares[layer.input]
        spread = float(_by_output(layer, error**2, square - mean**2).mean())
        # The mean input causes a constant error, which bias correction removes.
        return spread + float(np.mean(_by_output(layer, error, mean) ** 2)), spread

    def _power_after(self, layer: Layer) -> float:
        """Returns the power of a layer's output before its ReLU, estimated from the values after it."""
        follows, tensor, share = self._source.network.follows, layer.output, 1.0
        if tensor in follows:
            tensor = follows[tensor]
            histogram = self._histograms.get(tensor)
            filled = 0 if histogram is None else int(histogram.counts.sum())
            share = 1.0 if histogram is None else filled / max(filled + histogram.zeros, 1)
        return max(self._powers.get(tensor, 1.0) / max(share, 1e-6), 1e-30)


def rounding_noise(histogram: Histogram, grid: Grid) -> float:
    """Returns the mean squared error of a tensor from rounding to a grid and clipping at its ends.

    Args:
        histogram: Histogram of the tensor; zeros have no error on any grid.
        grid: One grid for the whole tensor.
    """
    n = int(histogram.counts.sum()) + histogram.zeros
    filled = np.flatnonzero(histogram.counts)
    if n == 0 or not len(filled):
        return 0.0
    edges, counts = histogram.edges, histogram.counts[filled]
    centres, widths = (edges[filled] + edges[filled + 1]) / 2, edges[filled + 1] - edges[filled]
    scale, zero = float(grid.scale), float(grid.zero_point)
    low, high = -(2 ** (grid.bits - 1)), 2 ** (grid.bits - 1) - 1
    rounded = (np.clip(np.round(centres / scale) + zero, low, high) - zero) * scale
    spread = np.minimum(widths, scale) ** 2 / 12  # of the values within a bin
    return float(np.dot(counts, (centres - rounded) ** 2 + spread) / n)


def _rounded(network: Network, plan: Plan) -> tuple[str, ...]:
    """Returns the activations that are rounded: all inputs and outputs of integer operators."""
    floats = frozenset(plan.float_nodes)
    integer = {t for op in network.operators if op.name not in floats for t in (*op.inputs, *op.outputs)}
    return tuple(t for t in network.tensors if t in integer)


def _by_output(layer: Layer, weight: Floats, of_channels: Floats) -> Floats:
    """Returns, per output channel, the sum of the weight's elements, each times its input channel's value."""
    if layer.op_type == "Gemm":
        return np.asarray(weight @ of_channels if layer.weight_axis_out == 0 else of_channels @ weight)
    kernel_sums = weight.reshape(*weight.shape[:2], -1).sum(axis=2)  # (n_out, n_in / n_groups)
    groups = of_channels.reshape(-1, kernel_sums.shape[1])  # (n_groups, n_in / n_groups)
    by_group = kernel_sums.reshape(len(groups), -1, kernel_sums.shape[1])
    return np.asarray(np.einsum("goi,gi->go", by_group, groups).ravel())
