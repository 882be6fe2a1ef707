"""Which of two timed models is faster, and how sure that is: intervals of medians over rounds in which both were timed."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TIE = 0.03
"""Relative difference below which two costs count as equal."""
DECIDING = 0.99
"""Confidence with which an order counts as decided: the rounds are looked at several times, for several pairs."""


class Bounds(NamedTuple):
    """A two-sided confidence interval."""

    low: float
    high: float


def median_bounds(values: Sequence[float] | NDArray[np.float64], confidence: float = 0.95) -> Bounds:
    """Returns a distribution-free interval of the median of `(n,)` values: two of them, by rank.

    David, Nagaraja 2003, "Order Statistics", section 7.1: the k-th smallest and the k-th largest of n independent values
    enclose the median with probability 1 - 2 P(B < k), B binomial (n, 1/2); k is the largest whose probability is at
    least `confidence`. Times of runs are skewed and have far outliers, so that no interval by a standard deviation holds.
    Below 6 values (8 for 99 %) there is no such k: the smallest and the largest are returned, which enclose
    the median with probability 1 - 2^(1 - n).

    Args:
        values: One value of each round, at least one.
        confidence: Nominal coverage.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    n, k, below = len(ordered), 1, 1.0  # `below` is 2^n P(B < k)
    while 2 * (below + comb(n, k)) <= (1 - confidence) * 2**n:
        below += comb(n, k)
        k += 1
    return Bounds(float(ordered[k - 1]), float(ordered[n - k]))


@dataclass(frozen=True)
class Ratio:
    """The time of one model over that of another.

    Attributes:
        median: Median over the rounds.
        low: Lower end of its interval.
        high: Upper end.
    """

    median: float
    low: float
    high: float

    @property
    def is_tie(self) -> bool:
        """Whether the two are surely within 3 % of each other."""
        return self.low >= 1 / (1 + TIE) and self.high <= 1 + TIE

    @property
    def is_decided(self) -> bool:
        """Whether it is known which is faster, or that they tie."""
        return self.is_tie or self.low > 1 or self.high < 1


def ratio(first: Sequence[float | None], second: Sequence[float | None]) -> Ratio | None:
    """Returns the ratio of two models' times, from rounds in which both were timed; None if there are fewer than two.

    Both are timed one shortly after the other in each round, so that the load of the machine, which changes between rounds,
    cancels in the ratio of a round. The interval has a confidence of 99 % from 8 rounds on.

    Args:
        first: Times by round in ms; None where it was not timed.
        second: Those of the other model, in the same rounds.
    """
    pairs = [(a, b) for a, b in zip(first, second, strict=False) if a and b]
    if len(pairs) < 2:
        return None
    ratios = np.array([a / b for a, b in pairs])
    low, high = median_bounds(ratios, DECIDING)
    return Ratio(float(np.median(ratios)), low, high)
