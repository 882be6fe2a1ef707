"""F1 over the steps of sequences, mean over the classes."""

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import SumMetric
from spaces.task_losses import IGNORED


class MacroF1(SumMetric):
    """The plain mean of every class's F1 over all steps that have a label; classes that neither occur nor are predicted do not count.

    Args:
        n_classes: Number of classes.
    """

    name = "macro_f1"
    unit = "%"
    scale = 100.0

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes

    def statistics(self, outputs: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns, for each class, how many steps are right, predicted and labelled so: `(b, 3, n_classes)`.

        Args:
            outputs: `(b, steps, n_outputs)`.
            labels: `(b, steps)`, -1 where there is none.
        """
        counted = labels != IGNORED
        predicted = outputs[:, :, : self.n_classes].argmax(axis=2)
        counts = [
            self._counts(labels, counted & (predicted == labels)),
            self._counts(predicted, counted),
            self._counts(labels, counted),
        ]
        return np.stack(counts, axis=1).astype(np.float64)

    def _counts(self, classes: NDArray[np.int64], counted: NDArray[np.bool_]) -> NDArray[np.int64]:
        rows = np.broadcast_to(np.arange(len(classes))[:, None], classes.shape)
        flat = rows[counted] * self.n_classes + classes[counted]
        n = len(classes) * self.n_classes
        return np.bincount(flat, minlength=n).reshape(len(classes), self.n_classes)

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the mean over the classes, from the sums `(m, 3 * n_classes)`."""
        right, predicted, labelled = np.moveaxis(sums.reshape(len(sums), 3, -1), 1, 0)
        both = predicted + labelled
        each = np.where(both > 0, 2 * right / np.where(both > 0, both, 1), 0.0)
        return np.asarray(each.sum(axis=1) / (both > 0).sum(axis=1))
