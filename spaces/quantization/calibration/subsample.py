"""Subsampled histograms: all first values of a tensor are counted, then a subsample and the tails.

A histogram of some million values hardly changes with more values, except in the tails, where few values
decide how a range is clipped. So after `WHOLE` values, every `STRIDE`-th value is counted `STRIDE` times; but
every value in the tails (beyond the outermost `TAIL` of the first values) is counted, once, so that the
extrema and the outer percentiles stay exact to a bin. Which values are counted depends only on an example's
position in the split, not on batches or on where a pass was interrupted and resumed.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spaces.quantization.calibration.histogram import Distribution

WHOLE = 2**21  # first values, all of which are counted; rounded up to whole examples
STRIDE = 31  # does not divide usual shapes; otherwise the same columns of all images would be sampled
TAIL = 1e-3  # share of the values in either tail
CHUNK = 2**16  # values per chunk, which fits the second-level cache
ALL_OF_8 = np.uint64(0x0101010101010101)  # eight times True

Values = NDArray[np.float32]


@dataclass
class SubsampledHistogram:
    """The histogram of one tensor over the first examples of a split.

    Attributes:
        n_examples: Number of examples.
        bounds: Values below the first or above the second are in the tails; None while all values are
            counted.
    """

    _distribution: Distribution = field(default_factory=Distribution)
    n_examples: int = 0
    bounds: tuple[float, float] | None = None
    _tails: list[Values] = field(default_factory=list, init=False)
    _samples: list[Values] = field(default_factory=list, init=False)
    _n_waiting: int = field(default=0, init=False)

    @property
    def counted(self) -> Distribution:
        """The histogram of all values that were added."""
        self._count()
        return self._distribution

    def add(self, values: Values) -> bool:
        """Counts the next examples, `(n_examples, ...)`.

        Returns:
            False if a value is not finite; the histogram is invalid then.
        """
        if not values.size:
            return True
        size = values.size // len(values)
        n_whole = max(-(-WHOLE // size) - self.n_examples, 0)
        whole, rest = values[:n_whole], values[n_whole:]
        self.n_examples += len(whole)
        if not self._distribution.add(whole):
            return False
        start = self.n_examples * size  # index among all values of the split
        self.n_examples += len(rest)
        return not len(rest) or self._add_subsampled(rest.reshape(-1), start)

    def _add_subsampled(self, values: Values, start: int) -> bool:
        if self.bounds is None:
            low, high = self._distribution.bounds(TAIL)
            self.bounds = (low + 0.0, high + 0.0)  # no negative zeros
        for at in range(0, len(values), CHUNK):
            chunk = values[at : at + CHUNK]
            sample = chunk[-(start + at) % STRIDE :: STRIDE]
            self._tails.append(_outside(chunk, *self.bounds))
            self._samples.append(sample[_is_inside(sample, *self.bounds)])
            self._n_waiting += len(self._tails[-1]) + len(self._samples[-1])
            if not np.isfinite(self._tails[-1]).all():
                return False
        if self._n_waiting > CHUNK:
            self._count()
        return True

    def _count(self) -> None:
        """Counts the collected tails and samples, many small arrays at once."""
        if self._n_waiting:
            self._distribution.add(np.concatenate(self._tails))
            self._distribution.add(np.concatenate(self._samples), STRIDE)
            self._tails, self._samples, self._n_waiting = [], [], 0


def _outside(chunk: Values, low: float, high: float) -> Values:
    """Returns the values outside the bounds, including those that are not finite."""
    inside = _is_inside(chunk, low, high)
    n_words = len(chunk) // 8
    # Eight flags are compared at once; few words have a value outside.
    words = np.flatnonzero(inside[: 8 * n_words].view(np.uint64) != ALL_OF_8)
    few = np.concatenate([chunk[: 8 * n_words].reshape(-1, 8)[words].ravel(), chunk[8 * n_words :]])
    return few[~_is_inside(few, low, high)]


def _is_inside(values: Values, low: float, high: float) -> NDArray[np.bool_]:
    if low == 0 <= high:  # bit patterns of floats from 0 to `high` are ordered, and smaller than all others
        return np.asarray(values.view(np.uint32) <= np.float32(high).view(np.uint32))
    inside = values >= np.float32(low)
    return np.logical_and(inside, values <= np.float32(high), out=inside)
