"""Intervals by the bootstrap, for metrics that are no mean of scores.

Examples are drawn with replacement (Efron, Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13): each resample
counts every example some times, and the quantiles of the metric over the resamples bound it. For a difference of two models both are
computed in the same resamples, so that what makes examples hard for both cancels.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import PooledMetric
from evaluators.task.statistics.groups import Groups
from evaluators.task.statistics.intervals import Interval

RESAMPLES = 400
_EQUAL = 1e-12  # relative difference of values that are equal but for rounding
_CHUNK = 2**22  # weights that are held at once

Values = NDArray[np.float64]


def resampled_values(
    metric: PooledMetric,
    statistics: NDArray[np.generic],
    n_resamples: int = RESAMPLES,
    seed: int = 0,
    groups: Groups | None = None,
) -> Values:
    """Returns the metric, before its scale, in each resample, `(n_resamples,)`; NaN where a resample has none.

    The same number of examples and the same seed give the same resamples. Examples of one group are drawn together, as are those of
    which a metric says that they belong together (`clusters`): the cluster bootstrap (Davison, Hinkley 1997, "Bootstrap Methods and their
    Application", section 3.8; Cameron, Gelbach, Miller 2008, "Bootstrap-based improvements for inference with clustered errors", Review
    of Economics and Statistics 90: of fewer than about 30 groups its intervals are somewhat too narrow).

    Args:
        metric: The metric.
        statistics: Those of all examples, `(n, ...)`.
        n_resamples: Number of resamples.
        seed: Seed of the drawing.
        groups: Groups of examples that are alike; None leaves it to the metric.
    """
    parts = []
    clusters = groups
    if clusters is None and hasattr(metric, "clusters"):
        clusters = metric.clusters(statistics)
    n = len(statistics) if clusters is None else int(clusters.max()) + 1
    with np.errstate(divide="ignore", invalid="ignore"):
        for drawn in _weights(n, n_resamples, seed):
            weights = drawn if clusters is None else drawn[:, clusters]
            if hasattr(metric, "pooled_each"):
                parts.append(metric.pooled_each(statistics, weights))
            else:  # a metric that does not inherit from PooledMetric
                parts.append(np.array([metric.pooled(statistics, row) for row in weights], np.float64))
    return np.concatenate(parts)


def bootstrap_interval(value: float, values: Values, confidence: float = 0.95) -> Interval | None:
    """Returns the interval between quantiles of the resampled values, which holds the value itself.

    None if no two resamples differ: where nothing in the sample contradicts a perfect score, or two models never differ, the
    bootstrap cannot say how far off the truth may be.

    Args:
        value: The metric, or the difference, of all examples.
        values: In each resample; those that are not finite do not count.
        confidence: Nominal coverage, in (0, 1).
    """
    finite = values[np.isfinite(values)]
    if not len(finite) or np.ptp(finite) <= _EQUAL * max(1.0, abs(value)):
        return None
    low, high = np.quantile(finite, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(min(float(low), value), max(float(high), value))


def _weights(n: int, n_resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yields how often each resample has each example, `(m, n)`."""
    rng = np.random.default_rng([seed, n])
    rows = max(1, _CHUNK // max(n, 1))
    for start in range(0, n_resamples, rows):
        m = min(rows, n_resamples - start)
        drawn = rng.integers(0, n, (m, n)) + n * np.arange(m)[:, None]
        yield np.bincount(drawn.reshape(-1), minlength=m * n).reshape(m, n).astype(np.float64)
