"""Counts a tensor's first values one by one, and of the later ones a sample and the tails.

A histogram of some million values hardly changes with more of them, but for its ends, where few values decide how a range is
clipped. So from `WHOLE` values on, every `STRIDE`-th value is counted `STRIDE` times; but a value beyond the outermost
`TAIL` of those before is always counted, once, so that the extrema and the outer percentiles stay exact to a bin. Which values
are counted follows from an example's place in the split alone: neither batches nor where a pass was put down
and taken up again make a difference.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spaces.quantization.calibration.histogram import Distribution

WHOLE = 2**21  # values that are all counted, rounded up to whole examples
STRIDE = 31  # no divisor of usual shapes, or the same columns of an image would be taken every time
TAIL = 1e-3  # share of the values on either side
CHUNK = 2**16  # values that are looked at together: they stay in the second-level cache
ALL_OF_8 = np.uint64(0x0101010101010101)  # eight times True

Values = NDArray[np.float32]


@dataclass
class SubsampledHistogram:
    """The distribution of one tensor over the first examples of a split.

    Attributes:
        n_examples: From how many examples.
        bounds: Values below the first or above the second are in the tails; None as long as all are counted.
    """

    _distribution: Distribution = field(default_factory=Distribution)
    n_examples: int = 0
    bounds: tuple[float, float] | None = None
    _tails: list[Values] = field(default_factory=list, init=False)
    _samples: list[Values] = field(default_factory=list, init=False)
    _n_waiting: int = field(default=0, init=False)

    @property
    def counted(self) -> Distribution:
        """What was counted."""
        self._count()
        return self._distribution

    def add(self, values: Values) -> bool:
        """Counts the next examples, `(n_examples, ...)`; False if a value is not finite: it is of no more use then."""
        if not values.size:
            return True
        size = values.size // len(values)
        n_whole = max(-(-WHOLE // size) - self.n_examples, 0)
        whole, rest = values[:n_whole], values[n_whole:]
        self.n_examples += len(whole)
        if not self._distribution.add(whole):
            return False
        start = self.n_examples * size  # of the split's values
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
        """Counts what was put aside: many small portions together."""
        if self._n_waiting:
            self._distribution.add(np.concatenate(self._tails))
            self._distribution.add(np.concatenate(self._samples), STRIDE)
            self._tails, self._samples, self._n_waiting = [], [], 0


def _outside(chunk: Values, low: float, high: float) -> Values:
    """Returns the values that are not within the bounds, among them those that are not finite."""
    inside = _is_inside(chunk, low, high)
    n_words = len(chunk) // 8
    words = np.flatnonzero(
        inside[: 8 * n_words].view(np.uint64) != ALL_OF_8
    )  # few: most are passed over 8 at a time
    few = np.concatenate([chunk[: 8 * n_words].reshape(-1, 8)[words].ravel(), chunk[8 * n_words :]])
    return few[~_is_inside(few, low, high)]


def _is_inside(values: Values, low: float, high: float) -> NDArray[np.bool_]:
    if low == 0 <= high:  # as integers, floats from 0 to `high` come first, in their order
        return np.asarray(values.view(np.uint32) <= np.float32(high).view(np.uint32))
    inside = values >= np.float32(low)
    return np.logical_and(inside, values <= np.float32(high), out=inside)
