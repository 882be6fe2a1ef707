"""What is learned instead of raw values: results of different tasks on one scale, on which collapses do not dominate."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_LEAST_DROP = 0.1  # of the median drop
_NEGLIGIBLE = 1e-9  # of the largest: to divide by less may overflow


class Target(Protocol):
    """Maps values, higher is better, to what is learned, about standardised and in the same order."""

    def __call__(self, values: Array) -> Array:
        """Returns `(n,)`."""


@dataclass(frozen=True)
class NormalScores:
    """What a value's rank among the rows would be worth if they were normal (Salinas et al. 2020, arXiv 1909.13595, section 4).

    A network that has collapsed to 0.1 % is as little worth as one at 30 %: a model of raw values would spend itself on
    which of the two it is.

    Attributes:
        values: `(k,)`, ascending.
        scores: `(k,)`, ascending.
    """

    values: Array
    scores: Array

    def __call__(self, values: Array) -> Array:
        """Returns `(n,)`; between the rows by straight lines, beyond them as the nearest."""
        found = np.interp(values, self.values, self.scores)
        return np.where(np.isnan(values), np.nan, found)

    @classmethod
    def of(cls, values: Array) -> "NormalScores":
        """Fits to finite values `(n,)`, at least one."""
        from scipy.special import ndtri

        distinct, counts = np.unique(values, return_counts=True)
        ranks = np.cumsum(counts) - 0.5 * counts  # ties share their mean rank
        scores = ndtri(ranks / counts.sum())
        mean = np.average(scores, weights=counts)
        std = np.sqrt(np.average((scores - mean) ** 2, weights=counts)) or 1.0
        return cls(distinct, (scores - mean) / std)


@dataclass(frozen=True)
class Plain:
    """Shifted and scaled.

    Attributes:
        shift: Taken off.
        scale: What is then divided by.
    """

    shift: float
    scale: float

    def __call__(self, values: Array) -> Array:
        """Returns `(n,)`."""
        return (values - self.shift) / self.scale

    @classmethod
    def of(cls, values: Array) -> "Plain":
        """Fits to finite values `(n,)`, at least one."""
        return cls(float(values.mean()), float(values.std()) or 1.0)


@dataclass(frozen=True)
class LogDrop:
    """Minus the logarithm of how far a value stays below what was had before, standardised.

    As in `RankedDrop`, the step from a drop of 0.2 points to one of 0.1 is as long as that from 20 to 10; far below the usual drop
    there are no more steps, or noise would make the best row a peak of its own.

    Attributes:
        top: What drops are from.
        least: What is added to every drop.
        standard: What standardises the logarithms.
    """

    top: float
    least: float
    standard: Plain

    def __call__(self, values: Array) -> Array:
        """Returns `(n,)`; values above the top count as the top."""
        drops = np.maximum(self.top - values, 0.0)
        return self.standard(-np.log(drops + self.least))

    @classmethod
    def of(cls, values: Array, baseline: float) -> "LogDrop":
        """Fits to finite values `(n,)`, at least one, and what the uncompressed model has."""
        top = max(baseline, float(values.max()))
        drops = top - values
        least = _LEAST_DROP * _typical(drops)
        return cls(top, least, Plain.of(-np.log(drops + least)))


@dataclass(frozen=True)
class Excess:
    """By how far a constraint is broken, compressed; what was 0 stays 0.

    Attributes:
        scale: A typical excess.
    """

    scale: float

    def __call__(self, values: Array) -> Array:
        """Returns `(n,)`."""
        return np.asarray(np.arcsinh(values / self.scale))

    @classmethod
    def of(cls, values: Array) -> "Excess":
        """Fits to finite values `(n,)`, at least one."""
        return cls(_typical(np.abs(values)))


def _typical(sizes: Array) -> float:
    """Returns the median, the largest where the median is next to nothing beside it, 1 where all are next to nothing."""
    largest, median = float(sizes.max()), float(np.median(sizes))
    if largest < np.finfo(np.float64).tiny:
        return 1.0
    return median if median > _NEGLIGIBLE * largest else largest
