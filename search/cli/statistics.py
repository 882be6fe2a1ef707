"""Means and intervals over the seeds of a sweep."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def half_width(counts: Sequence[Sequence[float]], weights: NDArray[np.float64]) -> float:
    """Returns half the 95 % interval of a weighted sum of independent means (Welch and Satterthwaite's t)."""
    from scipy import stats

    sizes = np.array([len(numbers) for numbers in counts])
    if sizes.min() < 2:
        return math.nan
    variances = weights**2 * np.array([np.var(numbers, ddof=1) for numbers in counts]) / sizes
    if not variances.any():
        return 0.0
    freedom = variances.sum() ** 2 / (variances**2 / (sizes - 1)).sum()
    return float(stats.t.ppf(0.975, freedom) * math.sqrt(variances.sum()))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the 95 % t interval of the mean; NaN for fewer than two values."""
    mean, half = float(np.mean(values)), half_width([values], np.ones(1))
    return mean - half, mean + half


def geometric_mean(values: Sequence[float] | NDArray[np.float64]) -> float:
    """Returns the geometric mean of positive numbers."""
    return float(np.exp(np.log(np.asarray(values, dtype=np.float64)).mean()))
