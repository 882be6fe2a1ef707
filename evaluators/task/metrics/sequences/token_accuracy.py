"""The share of steps whose class is right."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import SumMetric
from spaces.task_losses import IGNORED


class TokenAccuracy(SumMetric):
    """Right steps over all steps that have a label, of all sequences together; labels `(b, steps)`, -1 where there is none.

    Args:
        name: Name of the metric.
    """

    unit = "%"
    scale = 100.0

    def __init__(self, name: str = "token_accuracy") -> None:
        self.name = name

    def statistics(self, outputs: NDArray[np.float32], labels: NDArray[Any]) -> NDArray[np.float64]:
        """Returns the number of right steps and of steps with a label, `(b, 2)`; outputs are `(b, steps, n_classes)`."""
        right = (outputs.argmax(axis=2) == labels) & (labels != IGNORED)
        return np.stack([right.sum(axis=1), (labels != IGNORED).sum(axis=1)], axis=1).astype(np.float64)

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the share, from the sums `(m, 2)`."""
        return np.asarray(sums[:, 0] / sums[:, 1])


class SameTokens(TokenAccuracy):
    """The share of steps whose class is the other model's, whether they have a label or not."""

    def __init__(self) -> None:
        super().__init__("agreement")

    def statistics(self, outputs: NDArray[np.float32], labels: NDArray[Any]) -> NDArray[np.float64]:
        """Returns the number of equal steps and of steps, `(b, 2)`; both are `(b, steps, n_classes)`."""
        return super().statistics(outputs, labels.argmax(axis=2))
