"""The grids of weights: found once for each layer and rule, whatever the activations are."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spaces.models.layers import Layer
from spaces.quantization.calibration.clipping.base import WeightMethod
from spaces.quantization.plan.source import Source
from spaces.quantization.schemes.recent import Recent
from spaces.quantization.schemes.scheme import Grid, GridRule, make_grid

# onnxruntime adds the int32 bias to int32 sums: a quarter of the range leaves the sums their share.
LARGEST_BIAS = 2.0**29
# A grid is clear of this bound if its scales are so many times as large: more than clipping and rounding
# to a power of two can take from a scale.
CLEAR = 10.0
N_TOGETHER = 256
MOST_GRID_BYTES = 32 * 2**20


@dataclass(frozen=True)
class WeightRule:
    """What decides the grid of a weight besides its values.

    Attributes:
        rule: The scheme's rule for weights.
        per_channel: Whether each output channel has a scale of its own.
        bits: Bits of the storage.
        reduced: Whether one bit is spared.
        share_of: How the weight's range is clipped; None if it is not.
    """

    rule: GridRule
    per_channel: bool
    bits: int
    reduced: bool
    share_of: WeightMethod | None


@dataclass(frozen=True)
class _Known:
    """A grid that heeds no bias, and for each input of the layer the largest bias in steps of the grid."""

    grid: Grid
    loads: tuple[tuple[str, float], ...]

    @property
    def n_bytes(self) -> int:
        return 200 + self.grid.scale.nbytes + self.grid.zero_point.nbytes

    def is_clear(self, activations: Mapping[str, Grid]) -> bool:
        """Whether every bias is far below what would ask for larger scales."""
        return all(
            load * CLEAR <= float(activations[tensor].scale) * LARGEST_BIAS for tensor, load in self.loads
        )


@dataclass(frozen=True)
class _Together:
    """The grids of all layers that heed no bias, and their loads at one go."""

    grids: dict[str, Grid]
    tensors: tuple[str, ...]
    loads: NDArray[np.float64]

    def is_clear(self, activations: Mapping[str, Grid]) -> bool:
        steps = np.array([activations[tensor].scale for tensor in self.tensors], np.float64)
        return bool((self.loads * CLEAR <= steps * LARGEST_BIAS).all())


class WeightGrids:
    """The grids that were used last."""

    def __init__(self) -> None:
        self._together: Recent[tuple[object, ...], _Together] = Recent(N_TOGETHER)
        self._known: Recent[tuple[str, str, WeightRule], _Known] = Recent(
            MOST_GRID_BYTES, lambda k: k.n_bytes
        )

    def grids(
        self,
        source: Source,
        bits: Mapping[str, int],
        rules: Mapping[int, WeightRule],
        activations: Mapping[str, Grid],
    ) -> dict[str, Grid]:
        """Returns the grid of every layer in `bits`.

        Args:
            source: The float model.
            bits: Layer name to bits.
            rules: For each number of bits, what decides.
            activations: Tensor name to grid.
        """

        def build() -> _Together:
            known = {name: self._known_grid(source, name, rules[n]) for name, n in bits.items()}
            loads = [load for k in known.values() for load in k.loads]
            grids = {name: k.grid for name, k in known.items()}
            return _Together(grids, tuple(t for t, _ in loads), np.array([load for _, load in loads]))

        key = (source.artifact.digest, tuple(bits.items()), tuple(rules.items()))
        together = self._together.get(key, build)
        if together.is_clear(activations):
            return together.grids
        return {name: self.grid(source, name, rules[n], activations) for name, n in bits.items()}

    def grid(self, source: Source, name: str, rule: WeightRule, activations: Mapping[str, Grid]) -> Grid:
        """Returns the grid of a layer's weight.

        Args:
            source: The float model.
            name: The layer's name.
            rule: What decides.
            activations: Tensor name to grid: with the weight's scale it makes the step of the layer's int32
                bias, which must not become too small.
        """
        known = self._known_grid(source, name, rule)
        if known.is_clear(activations):
            return known.grid
        return _heeding_biases(source, name, rule, activations)

    def _known_grid(self, source: Source, name: str, rule: WeightRule) -> _Known:
        def build() -> _Known:
            layers = [layer for layer in source.network.layers if layer.name == name]
            grid = _grid(source.weights[name], layers[-1], rule, np.zeros(1))
            loads = [(x.input, _load(source.biases[x.bias], grid)) for x in layers if x.bias in source.biases]
            return _Known(grid, tuple(loads))

        return self._known.get((source.artifact.digest, name, rule), build)


def _load(bias: NDArray[np.float32], grid: Grid) -> float:
    sizes, steps = np.abs(bias.astype(np.float64)), grid.scale.astype(np.float64)
    if sizes.shape != steps.shape:  # a grouped ConvTranspose has a bias that is longer than its axis
        return float(sizes.max(initial=0.0) / steps.min())
    return float((sizes / steps).max(initial=0.0))


def _heeding_biases(source: Source, name: str, rule: WeightRule, activations: Mapping[str, Grid]) -> Grid:
    least = np.zeros(1)
    layers = [layer for layer in source.network.layers if layer.name == name]
    for layer in layers:
        if layer.bias in source.biases:
            step = activations[layer.input].scale.astype(np.float64) * LARGEST_BIAS
            least = np.maximum(np.abs(source.biases[layer.bias].astype(np.float64)) / step, least)
    return _grid(source.weights[name], layers[-1], rule, least)


def _grid(weight: NDArray[np.float32], layer: Layer, rule: WeightRule, least: NDArray[np.float64]) -> Grid:
    axis = layer.weight_axis_out
    others = tuple(i for i in range(weight.ndim) if i != axis) if rule.per_channel else None
    low, high = np.asarray(weight.min(axis=others)), np.asarray(weight.max(axis=others))
    if (
        least.shape != low.shape
    ):  # one scale, no bias, or a grouped ConvTranspose with a bias longer than its axis
        least = np.full(low.shape, least.max())

    def grid_of(share: NDArray[np.float64]) -> Grid:
        return make_grid(
            rule.rule,
            low * share,
            high * share,
            rule.bits,
            reduced=rule.reduced,
            least_scale=least,
            axis=axis if rule.per_channel else None,
        )

    return grid_of(np.ones(()) if rule.share_of is None else rule.share_of(weight, grid_of))
