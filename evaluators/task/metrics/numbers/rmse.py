"""The root of the mean squared error."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Direction, SumMetric


class RMSE(SumMetric):
    """The root of the mean of squared differences, over all examples and values; in the labels' unit.

    Args:
        unit: The labels' unit.
    """

    name = "rmse"
    direction: Direction = "minimize"

    def __init__(self, unit: str = "") -> None:
        self.unit = unit

    def statistics(self, outputs: NDArray[np.float32], labels: NDArray[Any]) -> NDArray[np.float64]:
        """Returns the mean squared difference of each example, `(b, 1)`; outputs and labels `(b, ...)` of equal size."""
        differences = outputs.reshape(len(outputs), -1).astype(np.float64) - labels.reshape(len(labels), -1)
        return np.stack([(differences**2).mean(1), np.ones(len(labels))], axis=1)

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the root of the mean, from the sums of squares and of examples, `(m, 2)`."""
        return np.asarray(np.sqrt(sums[:, 0] / sums[:, 1]))
