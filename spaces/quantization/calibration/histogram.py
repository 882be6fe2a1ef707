"""A streaming histogram that needs no range in advance and merges exactly.

Bins are `2^exponent / N_SIDE` wide and begin at 0, in either direction. A value outside doubles the width,
and bins are merged in pairs. Bin edges are multiples of a power of two, so that the bin of a float32 is exact
at any width; the counts depend only on the set of values, not on their order or batches.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spaces.quantization.calibration.clipping.base import Histogram

N_SIDE = 4096  # bins on either side of 0; the larger side uses more than half of them
# Smaller values fall into the bins next to 0; otherwise the scaling factor would overflow a float32.
LEAST_EXPONENT = -100
CHUNK = 2**16  # values per chunk: a few buffers of this size fit the second-level cache


@dataclass
class Distribution:
    """The streaming histogram of one tensor; `add` counts further values.

    Attributes:
        low: Smallest value, exact.
        high: Largest value, exact.
        zeros: Number of values that are exactly 0.
        exponent: All absolute values are smaller than `2^exponent`.
        counts: Number of values in each bin without zeros, `(2 * N_SIDE,)` int64; bin `N_SIDE + i` counts
            those from `i` to `i + 1` widths, bin `N_SIDE - 1 - i` their negatives.
    """

    low: float = math.inf
    high: float = -math.inf
    zeros: int = 0
    exponent: int = LEAST_EXPONENT
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2 * N_SIDE, np.int64))

    @property
    def width(self) -> float:
        """Width of a bin, a power of two."""
        return math.ldexp(1.0, self.exponent) / N_SIDE

    def add(self, values: NDArray[np.float32], times: int = 1) -> bool:
        """Counts values of any shape, each `times` times.

        Returns:
            False if a value is not finite; the histogram is invalid then.
        """
        flat = values.reshape(-1)
        return all(self._add_chunk(flat[i : i + CHUNK], times) for i in range(0, flat.size, CHUNK))

    def _add_chunk(self, values: NDArray[np.float32], times: int) -> bool:
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            return False
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.widen(exponent_of(max(-low, high)))
        scale = np.float32(N_SIDE * math.ldexp(1.0, -self.exponent))
        bins = (values * scale).astype(np.int32)  # truncates towards 0
        if low >= 0:
            found = np.bincount(bins, minlength=N_SIDE)
            self.counts[N_SIDE:] += found if times == 1 else found * times
            self._separate_zeros(values, int(found[0]), times)
            return True
        bins += N_SIDE
        found = np.bincount(bins, minlength=2 * N_SIDE)
        found *= times
        self.counts[N_SIDE:] += found[N_SIDE:]
        self.counts[: N_SIDE - 1] += found[1:N_SIDE]
        # Values within a width of 0, of either sign, are truncated to the same integer.
        near = times * int(np.count_nonzero(values < 0)) - int(found[1:N_SIDE].sum())
        self.counts[N_SIDE - 1] += near
        self.counts[N_SIDE] -= near
        self._separate_zeros(values, int(found[N_SIDE]) - near, times)
        return True

    def _separate_zeros(self, values: NDArray[np.float32], at_most: int, times: int) -> None:
        zeros = times * int(np.count_nonzero(values == 0)) if at_most else 0
        self.zeros += zeros
        self.counts[N_SIDE] -= zeros

    def widen(self, exponent: int) -> None:
        """Merges bins in pairs until they cover absolute values below `2^exponent`."""
        joins = exponent - self.exponent
        if joins <= 0:
            return
        self.exponent = exponent
        if not self.counts.any():
            return
        size = 2 ** min(joins, N_SIDE.bit_length() - 1)
        inner = self.counts.reshape(-1, size).sum(axis=1)
        self.counts = np.zeros(2 * N_SIDE, np.int64)
        half = len(inner) // 2
        self.counts[N_SIDE - half : N_SIDE + half] = inner

    def merge(self, other: "Distribution") -> None:
        """Adds the counts of another histogram."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.zeros += other.zeros
        same = Distribution(exponent=other.exponent, counts=other.counts)
        same.widen(self.exponent)
        self.widen(other.exponent)
        self.counts = self.counts + same.counts

    def bounds(self, share: float) -> tuple[float, float]:
        """Returns two bin edges, or extrema, with at most this share of all values below or above them.

        Zeros, which are in no bin, lie between them, unless all values are positive or all negative.
        """
        histogram = self.histogram()
        edges, below = histogram.edges, np.concatenate([[0], np.cumsum(histogram.counts)])
        spare = share * (below[-1] + self.zeros)
        low = edges[np.searchsorted(below, spare, side="right") - 1]
        high = edges[np.searchsorted(below, below[-1] - spare, side="left")]
        return min(float(low), max(self.low, 0.0)), max(float(high), min(self.high, 0.0))

    def histogram(self) -> Histogram:
        """Returns the bins from that of the smallest value to that of the largest."""
        first, last = _bin_of(self.low, self.width), _bin_of(self.high, self.width)
        return Histogram(
            self.low, self.high, self.counts[first : last + 1].copy(), self.zeros, self.width, first - N_SIDE
        )


def exponent_of(size: float) -> int:
    """Returns the smallest `e` with `size < 2^e`, but at least `LEAST_EXPONENT`."""
    return max(math.frexp(size)[1], LEAST_EXPONENT) if size > 0 else LEAST_EXPONENT


def _bin_of(value: float, width: float) -> int:
    bins = int(abs(value) / width)
    return N_SIDE - 1 - bins if value < 0 else N_SIDE + bins
