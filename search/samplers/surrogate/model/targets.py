"""Scales on which values are learned, so that collapsed networks do not dominate."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_LEAST_DROP = 0.1  # of the median drop
_NEGLIGIBLE = 1e-9  # of the largest: dividing by less may overflow


class Target(Protocol):
    """An increasing map from values, higher is better, to a scale on which they are about standardised."""

    def __call__(self, values: Array) -> Array:
        """Returns the values `(n,)` on that scale; NaN stays NaN."""


@dataclass(frozen=True)
class NormalScores:
    """The normal quantile of a value's rank among the rows (Salinas et al. 2020, arXiv 1909.13595, section 4).

    A network that has collapsed to 0.1 % is as useless as one at 30 %: a model of the raw values would fit
    the difference between the two instead of those between good candidates.

    Attributes:
        values: `(k,)`, distinct values of the rows, ascending.
        scores: `(k,)`, their standardised normal scores, ascending.
    """

    values: Array
    scores: Array

    def __call__(self, values: Array) -> Array:
        """Returns scores `(n,)`, interpolated linearly between the rows; beyond them the nearest row's."""
        scores = np.interp(values, self.values, self.scores)
        return np.where(np.isnan(values), np.nan, scores)

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
    """Standardisation: `(value - shift) / scale`.

    Attributes:
        shift: Mean of the rows.
        scale: Their standard deviation.
    """

    shift: float
    scale: float

    def __call__(self, values: Array) -> Array:
        """Returns standardised values `(n,)`."""
        return (values - self.shift) / self.scale

    @classmethod
    def of(cls, values: Array) -> "Plain":
        """Fits to finite values `(n,)`, at least one."""
        return cls(float(values.mean()), float(values.std()) or 1.0)


@dataclass(frozen=True)
class LogDrop:
    """Minus the logarithm of a value's drop below the uncompressed model's, standardised.

    As in `RankedDrop`, the step from a drop of 0.2 points to one of 0.1 is as long as that from 20 to 10. A
    constant added to every drop makes differences between drops far below the median negligible, or noise
    would make the best row an outlier.

    Attributes:
        top: The value from which drops are measured.
        least: Added to every drop, in the unit of the values.
        standard: Standardises the logarithms.
    """

    top: float
    least: float
    standard: Plain

    def __call__(self, values: Array) -> Array:
        """Returns scores `(n,)`; values above `top` count as `top`."""
        drops = np.maximum(self.top - values, 0.0)
        return self.standard(-np.log(drops + self.least))

    @classmethod
    def of(cls, values: Array, baseline: float) -> "LogDrop":
        """Fits to finite values `(n,)`, at least one, and the uncompressed model's value."""
        top = max(baseline, float(values.max()))
        drops = top - values
        least = _LEAST_DROP * _typical(drops)
        return cls(top, least, Plain.of(-np.log(drops + least)))


@dataclass(frozen=True)
class Shortfall:
    """Minus the logarithm of by how much a value is below the best row, standardised; it can be inverted.

    It spreads the good rows and compresses a long tail of bad ones, as `LogDrop` does where the uncompressed model's
    value is known.

    Attributes:
        top: Value that is not reached: the best row's plus the median shortfall.
        standard: Standardises the logarithms.
    """

    top: float
    standard: Plain

    def __call__(self, values: Array) -> Array:
        """Returns scores `(n,)`; infinite from `top` on."""
        with np.errstate(divide="ignore"):
            return self.standard(-np.log(np.maximum(self.top - values, 0.0)))

    def inverse(self, scaled: Array) -> Array:
        """Returns the values `(n,)` of scores."""
        return np.asarray(self.top - np.exp(-(self.standard.shift + self.standard.scale * scaled)))

    def log_slope(self, values: Array) -> Array:
        """Returns the logarithm of the map's derivative at values `(n,)`, none above the best row."""
        return np.asarray(-np.log(self.top - values) - np.log(self.standard.scale))

    @classmethod
    def of(cls, values: Array) -> "Shortfall":
        """Fits to finite values `(n,)`, at least one."""
        best = float(values.max())
        top = best + _typical(best - values)
        return cls(top, Plain.of(-np.log(top - values)))


@dataclass(frozen=True)
class Excess:
    """The excess of a constraint as `arcsinh(excess / scale)`: sign and 0 are kept, large excesses are compressed.

    Attributes:
        scale: The median absolute excess.
    """

    scale: float

    def __call__(self, values: Array) -> Array:
        """Returns excesses `(n,)` on this scale."""
        return np.asarray(np.arcsinh(values / self.scale))

    @classmethod
    def of(cls, values: Array) -> "Excess":
        """Fits to finite values `(n,)`, at least one."""
        return cls(_typical(np.abs(values)))


def _typical(sizes: Array) -> float:
    """Returns the median of sizes `(n,)`; the largest if the median is negligible beside it, 1 if all are 0."""
    largest, median = float(sizes.max()), float(np.median(sizes))
    if largest < np.finfo(np.float64).tiny:
        return 1.0
    return median if median > _NEGLIGIBLE * largest else largest
