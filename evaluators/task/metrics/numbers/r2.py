"""The share of the labels' variance that a model explains."""

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import SumMetric


class R2(SumMetric):
    """1 minus the squared errors over the labels' squared deviations from their mean; for several values their plain mean.

    Args:
        name: Name of the metric.
    """

    unit = "%"
    scale = 100.0

    def __init__(self, name: str = "r2") -> None:
        self.name = name

    def statistics(self, outputs: NDArray[np.float32], labels: NDArray[np.generic]) -> NDArray[np.float64]:
        """Returns, for each value of an example, 1, label, squared label and squared error: `(b, 4, k)`."""
        y = labels.reshape(len(labels), -1).astype(np.float64)
        errors = outputs.reshape(len(outputs), -1) - y
        return np.stack([np.ones_like(y), y, y**2, errors**2], axis=1)

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the mean over the values whose labels differ, from the sums `(m, 4 * k)`; NaN if there are none."""
        n, y, squares, errors = np.moveaxis(sums.reshape(len(sums), 4, -1), 1, 0)
        deviations = squares - y**2 / n
        differs = deviations > 1e-12 * np.maximum(squares, 1e-300)
        shares = np.where(differs, 1 - errors / np.where(differs, deviations, 1.0), np.nan)
        counted = np.maximum(differs.sum(1), 1)
        return np.asarray(np.where(differs.any(1), np.nansum(shares, axis=1) / counted, np.nan))
