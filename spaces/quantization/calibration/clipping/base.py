"""Clipping: which part of a tensor's real range the grid should cover."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spaces.quantization.schemes.scheme import Grid, GridRule, make_grid


@dataclass(frozen=True)
class Histogram:
    """Histogram of the values of one tensor.

    Attributes:
        low: Smallest value, and lower edge of the first bin.
        high: Largest value, and upper edge of the last bin.
        counts: Number of values in each bin, `(n_bins,)` int64, without exact zeros: every grid represents 0,
            so zeros are neither rounded nor clipped, and after a ReLU they would outweigh all other values.
        zeros: Number of values that are exactly 0.
        width: Width of all bins except the first and the last, which end at `low` and `high`; None if all
            bins have the same width.
        first: Index of the first bin, which begins at `first * width` before it is cut at `low`.
    """

    low: float
    high: float
    counts: NDArray[np.int64]
    zeros: int
    width: float | None = None
    first: int = 0

    @property
    def edges(self) -> NDArray[np.float64]:
        """Edges of the bins, `(n_bins + 1,)`."""
        if self.width is None:
            return np.linspace(self.low, self.high, len(self.counts) + 1)
        edges = (self.first + np.arange(len(self.counts) + 1, dtype=np.float64)) * self.width
        edges[0], edges[-1] = self.low, self.high
        return edges

    def coarser(self, most_bins: int) -> "Histogram":
        """Joins bins in pairs until there are no more than `most_bins`; only where `width` is given."""
        counts, first, width = self.counts, self.first, self.width
        while width is not None and len(counts) > most_bins:
            padded = np.pad(counts, (first % 2, (len(counts) + first) % 2))
            counts, first, width = padded.reshape(-1, 2).sum(axis=1), first // 2, width * 2
        return Histogram(self.low, self.high, counts, self.zeros, width, first)


@dataclass(frozen=True)
class ClipContext:
    """Inputs of a clipping method besides the histogram.

    Attributes:
        rule: The scheme's rule for activations, which gives the step of the grid over a range.
        bits: Bits of the activations.
        percentile: The share of values to cover, in per cent.
    """

    rule: GridRule
    bits: int
    percentile: float

    def step(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the step of the grid over each range, `(n,)`."""
        return make_grid(self.rule, low, high, self.bits).scale.astype(np.float64)


Method = Callable[[Histogram, ClipContext], tuple[float, float]]
WeightMethod = Callable[[NDArray[np.float32], Callable[[NDArray[np.float64]], Grid]], NDArray[np.float64]]


def windows(histogram: Histogram, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns `n` candidate ranges around 0, the last of them the whole range: lows `(n,)` and highs `(n,)`.

    A candidate covers the values with `|x| <= t`, but is not wider than the whole range on either side.
    """
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    limits = max(-low, high) * np.arange(1, n + 1) / n
    return np.maximum(low, -limits), np.minimum(high, limits)


@dataclass(frozen=True)
class Clipping:
    """One row of the table of clipping methods.

    Attributes:
        name: The knob's value.
        method: Computes the range to cover from a histogram.
        needs_histogram: Whether the method uses more than the smallest and largest value.
        most_bits: With more activation bits than this the method never clips.
        weight_share: Computes the share of a weight's range that its grid should cover, from the weight and a
            function from shares to grids; None if only activations are clipped.
    """

    name: str
    method: Method
    needs_histogram: bool
    most_bits: int = 16
    weight_share: WeightMethod | None = None
