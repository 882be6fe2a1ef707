"""Computes the grids of weights, once per layer and rule where they do not depend on the activations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spaces.models.layers import Layer
from spaces.quantization.calibration.clipping.base import WeightMethod
from spaces.quantization.plan.source import Source
from spaces.quantization.schemes.recent import Recent
from spaces.quantization.schemes.scheme import Grid, GridRule, make_grid

# Largest integer of an int32 bias: onnxruntime adds it to int32 sums, which must not overflow.
LARGEST_BIAS = 2.0**29
# A scale this many times as large as the bound from the bias does not depend on the bias: clipping and
# rounding to a power of two reduce a scale by less.
MARGIN = 10.0
MAX_SETS = 256
MAX_GRID_BYTES = 32 * 2**20


@dataclass(frozen=True)
class WeightRule:
    """The settings that a weight's grid depends on, besides the weight.

    Attributes:
        rule: The scheme's rule for weights.
        per_channel: Whether each output channel has its own scale.
        bits: Bits of the storage.
        reduced: Whether the grid uses one bit less than the storage has.
        share_of: The clipping method of the weight's range; None for no clipping.
    """

    rule: GridRule
    per_channel: bool
    bits: int
    reduced: bool
    share_of: WeightMethod | None


@dataclass(frozen=True)
class _UnboundedGrid:
    """A weight's grid without the bound from the bias.

    Attributes:
        grid: The grid.
        ratios: For each input tensor of the layer, the largest ratio of a bias to the weight's scale.
    """

    grid: Grid
    ratios: tuple[tuple[str, float], ...]

    @property
    def n_bytes(self) -> int:
        return 200 + self.grid.scale.nbytes + self.grid.zero_point.nbytes

    def is_valid(self, activations: Mapping[str, Grid]) -> bool:
        """Whether every bias is so small that it does not require larger scales."""
        return all(
            ratio * MARGIN <= float(activations[tensor].scale) * LARGEST_BIAS for tensor, ratio in self.ratios
        )


@dataclass(frozen=True)
class _UnboundedGrids:
    """The unbounded grids of all layers, with their ratios in one array."""

    grids: dict[str, Grid]
    tensors: tuple[str, ...]
    ratios: NDArray[np.float64]

    def is_valid(self, activations: Mapping[str, Grid]) -> bool:
        if not activations:  # they stay float, and so do the biases
            return True
        steps = np.array([activations[tensor].scale for tensor in self.tensors], np.float64)
        return bool((self.ratios * MARGIN <= steps * LARGEST_BIAS).all())


class WeightGrids:
    """LRU cache of weight grids."""

    def __init__(self) -> None:
        self._sets: Recent[tuple[object, ...], _UnboundedGrids] = Recent(MAX_SETS)
        self._unbounded: Recent[tuple[str, str, WeightRule], _UnboundedGrid] = Recent(
            MAX_GRID_BYTES, lambda g: g.n_bytes
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
            rules: Number of bits to rule.
            activations: Tensor name to grid.
        """

        def build() -> _UnboundedGrids:
            unbounded = {name: self._unbounded_grid(source, name, rules[n]) for name, n in bits.items()}
            ratios = [pair for g in unbounded.values() for pair in g.ratios]
            grids = {name: g.grid for name, g in unbounded.items()}
            return _UnboundedGrids(
                grids, tuple(t for t, _ in ratios), np.array([ratio for _, ratio in ratios])
            )

        key = (source.key, tuple(bits.items()), tuple(rules.items()))
        grids = self._sets.get(key, build)
        if grids.is_valid(activations):
            return grids.grids
        return {name: self.grid(source, name, rules[n], activations) for name, n in bits.items()}

    def grid(self, source: Source, name: str, rule: WeightRule, activations: Mapping[str, Grid]) -> Grid:
        """Returns the grid of a layer's weight.

        Args:
            source: The float model.
            name: The layer's name.
            rule: The settings of the grid.
            activations: Tensor name to grid. The product of its scale and the weight's is the scale of the
                layer's int32 bias, which must not become too small.
        """
        unbounded = self._unbounded_grid(source, name, rule)
        if unbounded.is_valid(activations):
            return unbounded.grid
        return _bounded_grid(source, name, rule, activations)

    def _unbounded_grid(self, source: Source, name: str, rule: WeightRule) -> _UnboundedGrid:
        def build() -> _UnboundedGrid:
            layers = [layer for layer in source.network.layers if layer.name == name]
            grid = _grid(source.weights[name], layers, rule, np.zeros(1))
            ratios = [
                (x.input, _largest_ratio(source.biases[x.bias], grid))
                for x in layers
                if x.bias in source.biases
            ]
            return _UnboundedGrid(grid, tuple(ratios))

        return self._unbounded.get((source.key, name, rule), build)


def _has_scale_per_output(layer: Layer) -> bool:
    """Whether kernels take a scale for each entry of the weight's axis, and the int32 bias one for each output.

    Groups of a ConvTranspose share the entries of the axis. With a bias, its weight gets one scale. So does the
    weight of a MatMul with more than two axes: onnxruntime's kernels refuse more scales.
    """
    if layer.op_type == "MatMul" and len(layer.weight_shape) > 2:
        return False
    return layer.bias is None or layer.weight_shape[layer.weight_axis_out] == layer.n_outputs


def _largest_ratio(bias: NDArray[np.float32], grid: Grid) -> float:
    sizes, steps = np.abs(bias.astype(np.float64)), grid.scale.astype(np.float64)
    if sizes.shape != steps.shape:  # one scale
        return float(sizes.max(initial=0.0) / steps.min())
    return float((sizes / steps).max(initial=0.0))


def _bounded_grid(source: Source, name: str, rule: WeightRule, activations: Mapping[str, Grid]) -> Grid:
    """Returns a weight's grid whose scales are large enough for the int32 biases."""
    least = np.zeros(1)
    layers = [layer for layer in source.network.layers if layer.name == name]
    for layer in layers:
        if layer.bias in source.biases:
            step = activations[layer.input].scale.astype(np.float64) * LARGEST_BIAS
            bound = np.abs(source.biases[layer.bias].astype(np.float64)) / step
            if least.size > 1 and least.shape != bound.shape:  # groups of a shared ConvTranspose: one scale
                least = least.max(keepdims=True)
            least = np.maximum(bound, least)
    return _grid(source.weights[name], layers, rule, least)


def _grid(
    weight: NDArray[np.float32], layers: Sequence[Layer], rule: WeightRule, least: NDArray[np.float64]
) -> Grid:
    per_channel = rule.per_channel and all(map(_has_scale_per_output, layers))
    axis = layers[0].weight_axis_out if per_channel else None
    others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
    low, high = np.asarray(weight.min(axis=others)), np.asarray(weight.max(axis=others))
    if least.shape != low.shape:  # one scale, or no bias
        least = np.full(low.shape, least.max())

    def grid_of(share: NDArray[np.float64]) -> Grid:
        return make_grid(
            rule.rule,
            low * share,
            high * share,
            rule.bits,
            reduced=rule.reduced,
            least_scale=least,
            axis=axis,
        )

    return grid_of(np.ones(()) if rule.share_of is None else rule.share_of(weight, grid_of))
