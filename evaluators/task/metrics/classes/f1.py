"""The F1 score: the harmonic mean of precision and recall."""

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import SumMetric
from evaluators.task.metrics.classes.scored_classes import ScoredClasses


class F1(SumMetric):
    """F1 of the decisions `score above threshold`, mean over the classes that occur or are predicted.

    Args:
        threshold: Score above which an example counts as one of the class: 0 for logits and for the outputs of two classes,
            0.5 for probabilities.
    """

    name = "f1"
    unit = "%"
    scale = 100.0

    def __init__(self, threshold: float = 0.0) -> None:
        self.threshold = threshold

    def statistics(self, outputs: NDArray[np.float32], labels: NDArray[np.generic]) -> NDArray[np.float64]:
        """Returns hits, false alarms and misses of each class, `(b, 3, k)`."""
        scores, y = np.moveaxis(ScoredClasses.statistics(self, outputs, labels), 1, 0)  # type: ignore[arg-type]
        said, right = scores > self.threshold, y > 0
        return np.stack([said & right, said & ~right, ~said & right], axis=1).astype(np.float64)

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the mean over the classes, from the sums `(m, 3 * k)`; NaN if no class occurs or is predicted."""
        hits, alarms, misses = np.moveaxis(sums.reshape(len(sums), 3, -1), 1, 0)
        all_ = 2 * hits + alarms + misses
        each = np.where(all_ > 0, 2 * hits / np.where(all_ > 0, all_, 1.0), np.nan)
        counted = np.maximum((all_ > 0).sum(1), 1)
        return np.asarray(np.where((all_ > 0).any(1), np.nansum(each, axis=1) / counted, np.nan))
