"""Clipping: which part of a tensor's real range the grid should cover."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spaces.quantization.schemes.scheme import Grid, GridRule, make_grid


@dataclass(frozen=True)
class Histogram:
    """How the values of one tensor are distributed.

    Attributes:
        low: Smallest value, and lower edge of the first bin.
        high: Largest value, and upper edge of the last bin.
        counts: Values in each bin, `(n_bins,)` int64, without those that are exactly 0: every grid holds 0,
            so they are never rounded nor clipped, and after a ReLU they would outweigh all others.
        zeros: How many values are exactly 0.
        width: Width of a bin, but for the first and the last, which end at `low` and `high`; None: all are equal.
        first: The first bin would begin at `first * width`.
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
    """What a clipping method may use besides the distribution.

    Attributes:
        rule: The scheme's rule for activations: says how coarse the grid over a range is.
        bits: Bits of the activations.
        percentile: The share of values to cover, in per cent.
    """

    rule: GridRule
    bits: int
    percentile: float

    def step(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the real distance of two neighbours on the grid over each range, `(n,)`."""
        return make_grid(self.rule, low, high, self.bits).scale.astype(np.float64)


Method = Callable[[Histogram, ClipContext], tuple[float, float]]
WeightMethod = Callable[[NDArray[np.float32], Callable[[NDArray[np.float64]], Grid]], NDArray[np.float64]]


def windows(histogram: Histogram, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns `n` candidate ranges around 0, the last of them the whole range: lows `(n,)` and highs `(n,)`.

    A candidate holds the values with `|x| <= t`; a side that ends before `t` is not widened.
    """
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    limits = max(-low, high) * np.arange(1, n + 1) / n
    return np.maximum(low, -limits), np.minimum(high, limits)


@dataclass(frozen=True)
class Clipping:
    """One row of the table of clipping methods.

    Attributes:
        name: The knob's value.
        method: From a histogram to the range to cover.
        needs_histogram: Whether it looks at more than the smallest and largest value.
        most_bits: With more activation bits than this the method never clips.
        weight_share: From a weight, and a function from shares of its range to grids, to the share that
            its grid should cover; None where only activations are clipped.
    """

    name: str
    method: Method
    needs_histogram: bool
    most_bits: int = 16
    weight_share: WeightMethod | None = None
