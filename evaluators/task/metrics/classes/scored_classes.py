"""The base class of metrics of one or several yes-or-no classes, equal to scikit-learn's."""

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import PooledMetric


class ScoredClasses(PooledMetric):
    """The mean over the classes of a metric of labels 0 or 1, and scores.

    All resamples are computed at once, because one call of scikit-learn for each class and resample takes long.

    Scores are outputs `(n,)`, `(n, 1)` or `(n, k)`, one for each class, as large as the class is likely. A single label may
    come with the outputs of two classes, `(n, 2)`: the score is then their difference. Classes of which there are no examples, or
    only such, do not count.
    """

    unit = "%"
    scale = 100.0

    @abstractmethod
    def of_sums(self, yes: NDArray[np.float64], no: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the metric of one class for several weightings of the examples, `(m,)`.

        Args:
            yes: Weight of the examples of the class that have each score, `(m, n_scores)`, the highest score first.
            no: Likewise of the examples that are not of it.
        """

    def statistics(self, outputs: NDArray[np.float32], labels: NDArray[np.generic]) -> NDArray[np.float64]:
        """Returns score and label of each class, `(b, 2, k)`."""
        y = labels.reshape(len(labels), -1).astype(np.float64)
        scores = outputs.reshape(len(outputs), -1).astype(np.float64)
        if y.shape[1] == 1 and scores.shape[1] == 2:
            scores = scores[:, 1:] - scores[:, :1]
        return np.stack([scores, y], axis=1)

    def pooled(self, statistics: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
        """Returns the mean over the classes; NaN if none has both labels."""
        return float(self.pooled_each(statistics, weights[None])[0])

    def pooled_each(
        self, statistics: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Returns the mean over the classes for each row of weights `(m, n)`; NaN where no class has both labels."""
        n_yes = statistics[:, 1].sum(0)
        both = np.flatnonzero(
            (n_yes > 0) & (n_yes < len(statistics))
        )  # no weights give a class the other kind
        if not len(both):
            return np.full(len(weights), np.nan)
        values = np.stack([self._class(statistics[:, :, k], weights) for k in both])
        counted = np.isfinite(values)
        sums = np.where(counted, values, 0.0).sum(0)
        return np.asarray(np.where(counted.any(0), sums / np.maximum(counted.sum(0), 1), np.nan))

    def _class(self, statistics: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        order = np.argsort(-statistics[:, 0], kind="stable")
        scores, labels = statistics[order].T
        starts = np.flatnonzero(np.append(True, scores[1:] != scores[:-1]))
        sorted_weights = weights[:, order]
        yes, no = (np.add.reduceat(sorted_weights * part, starts, axis=1) for part in (labels, 1 - labels))
        both = (yes.sum(1) > 0) & (no.sum(1) > 0)
        with np.errstate(divide="ignore", invalid="ignore"):  # where a resample has no example of a kind
            return np.asarray(np.where(both, self.of_sums(yes, no), np.nan))
