"""Macro F1: the mean of the classes' F1 scores, so that rare classes count as much as frequent ones."""

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import SumMetric


class MacroF1(SumMetric):
    """The mean of F1 over the classes that occur or are predicted; of equal outputs the first counts."""

    name = "macro_f1"
    unit = "%"
    scale = 100.0

    def statistics(self, outputs: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns, of outputs `(b, k)` and labels `(b,)`, hits, predictions and labels of each class, `(b, 3, k)`."""
        classes = np.arange(outputs.shape[1])
        said = outputs.argmax(axis=1)[:, None] == classes
        right = labels[:, None] == classes
        return np.stack([said & right, said, right], axis=1).astype(np.float64)

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the mean over the classes, from the sums `(m, 3 * k)`."""
        hits, said, right = np.moveaxis(sums.reshape(len(sums), 3, -1), 1, 0)
        both = said + right
        each = np.where(both > 0, 2 * hits / np.where(both > 0, both, 1.0), 0.0)
        return np.asarray(each.sum(axis=1) / (both > 0).sum(axis=1))
