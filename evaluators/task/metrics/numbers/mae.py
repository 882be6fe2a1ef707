"""The mean absolute error."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Direction, MeanMetric


class MAE(MeanMetric):
    """The mean of absolute differences, over all examples and values; in the labels' unit.

    Args:
        unit: The labels' unit.
    """

    name = "mae"
    direction: Direction = "minimize"

    def __init__(self, unit: str = "") -> None:
        self.unit = unit

    def per_example(self, outputs: NDArray[np.float32], labels: NDArray[Any]) -> NDArray[np.float64]:
        """Returns the mean absolute difference of each example, `(b,)`; outputs and labels `(b, ...)` of equal size."""
        differences = outputs.reshape(len(outputs), -1).astype(np.float64) - labels.reshape(len(labels), -1)
        return np.asarray(np.abs(differences).mean(1))
