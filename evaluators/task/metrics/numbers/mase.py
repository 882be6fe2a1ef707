"""The mean absolute scaled error of a forecast (Hyndman, Koehler 2006, "Another look at measures of forecast accuracy")."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Direction, MeanMetric


class MASE(MeanMetric):
    """The mean of absolute errors, each in units of the naive forecast's on the training split; below 1 is better than that one.

    Args:
        errors: Mean absolute errors of the naive forecast, one for each value of a label.
    """

    name = "mase"
    direction: Direction = "minimize"

    def __init__(self, errors: NDArray[np.float64]) -> None:
        self.errors = errors.reshape(1, -1)

    def per_example(self, outputs: NDArray[np.float32], labels: NDArray[Any]) -> NDArray[np.float64]:
        """Returns the mean scaled difference of each example, `(b,)`; outputs and labels `(b, ...)` of equal size."""
        differences = outputs.reshape(len(outputs), -1).astype(np.float64) - labels.reshape(len(labels), -1)
        return np.asarray((np.abs(differences) / self.errors).mean(1))
