"""The share of the variance of the uncompressed network's outputs that a network reproduces."""

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import SumMetric


class FidelityOfValues(SumMetric):
    """1 minus the squared differences of all outputs over their squared deviations from their common mean: 99 % are 20 dB.

    Unlike the mean of R2 over the outputs (`r2`), it is not ruled by outputs that hardly vary.
    """

    name = "fidelity"
    unit = "%"
    scale = 100.0

    def statistics(self, outputs: NDArray[np.float32], labels: NDArray[np.float32]) -> NDArray[np.float64]:
        """Returns, for each example, number, sum and sum of squares of its labels, and of squared differences: `(b, 4)`."""
        y = labels.reshape(len(labels), -1).astype(np.float64)
        errors = outputs.reshape(len(outputs), -1) - y
        return np.stack(
            [np.full(len(y), float(y.shape[1])), y.sum(1), (y**2).sum(1), (errors**2).sum(1)], axis=1
        )

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the share for each row of sums `(m, 4)`; NaN where all labels are equal."""
        n, y, squares, errors = sums.T
        deviations = squares - y**2 / np.maximum(n, 1.0)
        differs = deviations > 1e-12 * np.maximum(squares, 1e-300)
        return np.where(differs, 1 - errors / np.where(differs, deviations, 1.0), np.nan)
