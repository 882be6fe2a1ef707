"""How well the error of an autoencoder tells anomalies from normal examples."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import PooledMetric
from spaces.task_losses import RECONSTRUCTION_HEAD


class ReconstructionAUC(PooledMetric):
    """The area under the receiver operating characteristic of the error by which an autoencoder misses its own input.

    The error of an example is the mean of squared differences; that of a clip the mean of its examples' errors, as in MLPerf
    Tiny (Banbury et al. 2021, arXiv 2106.07597). Labels are `(n, 2 + k)`: 1 for an anomaly or else 0, the number of the clip, below
    0 for an example that is one by itself, and the `k` values of the input.

    Args:
        max_fpr: Highest false positive rate that counts, standardised to 0.5 for random errors (McClish 1989); None takes all.
    """

    unit = "%"
    scale = 100.0

    def __init__(self, max_fpr: float | None = None) -> None:
        self.max_fpr = max_fpr
        self.name = "auc" if max_fpr is None else "partial_auc"

    def statistics(self, outputs: NDArray[np.float32], labels: NDArray[np.generic]) -> NDArray[np.float64]:
        """Returns error, flag and clip of each example, `(b, 3)`."""
        inputs = labels[:, RECONSTRUCTION_HEAD:].astype(np.float64)
        errors = ((outputs.reshape(len(outputs), -1) - inputs) ** 2).mean(1)
        return np.column_stack([errors, labels[:, :RECONSTRUCTION_HEAD]]).astype(np.float64)

    def clusters(self, statistics: NDArray[Any]) -> NDArray[np.int64]:
        """Returns the number of each example's clip: the windows of one are drawn together, since they are no repeats."""
        return _units(statistics)

    def pooled(self, statistics: NDArray[Any], weights: NDArray[np.float64]) -> float:
        """Returns the area; NaN without both kinds.

        Args:
            statistics: `(n, 3)`.
            weights: `(n,)`, equal within a clip, which then counts so often.
        """
        counted = weights > 0
        errors, flags = statistics[counted, 0], statistics[counted, 1]
        units = _units(statistics[counted])
        sizes = np.bincount(units)
        mean = partial(np.bincount, units)
        unit_errors, unit_flags, unit_weights = (
            mean(weights=values) / sizes for values in (errors, flags, weights[counted])
        )
        anomalous = unit_flags > 0
        if anomalous.all() or not anomalous.any():
            return float("nan")
        return _area(anomalous, unit_errors, unit_weights, self.max_fpr)


def _area(
    anomalous: NDArray[np.bool_],
    errors: NDArray[np.float64],
    weights: NDArray[np.float64],
    max_fpr: float | None,
) -> float:
    """Returns what scikit-learn's `roc_auc_score` returns, without its checks, which cost more than the area."""
    order = np.argsort(-errors, kind="stable")
    last = np.append(np.diff(errors[order]) != 0, True)  # of each threshold
    ratios = []
    for kind in (~anomalous, anomalous):
        passed = np.cumsum(np.where(kind, weights, 0.0)[order])
        ratios.append(np.append(0.0, passed[last] / passed[-1]))
    fpr, tpr = ratios
    if max_fpr is None:
        return float(np.trapezoid(tpr, fpr))
    stop = int(np.searchsorted(fpr, max_fpr, "right"))
    at_stop = np.interp(max_fpr, fpr[stop - 1 : stop + 1], tpr[stop - 1 : stop + 1])
    area = np.trapezoid(np.append(tpr[:stop], at_stop), np.append(fpr[:stop], max_fpr))
    least = 0.5 * max_fpr**2
    return float(0.5 * (1 + (area - least) / (max_fpr - least)))


def _units(statistics: NDArray[Any]) -> NDArray[np.int64]:
    """Returns numbers from 0 on: one for each clip, and one for each example without."""
    clips = statistics[:, 2].astype(np.int64)
    alone = clips < 0
    clips[alone] = clips.max(initial=0) + 1 + np.arange(int(alone.sum()))
    return np.unique(clips, return_inverse=True)[1].reshape(-1).astype(np.int64)
