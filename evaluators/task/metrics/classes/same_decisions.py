"""Agreement of two models that answer yes-or-no questions."""

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import MeanMetric


class SameDecisions(MeanMetric):
    """The share of yes-or-no decisions, `score above threshold`, that are the other model's.

    Args:
        threshold: As in `F1`. With the outputs of two classes, the larger one decides.
    """

    name = "agreement"
    unit = "%"
    scale = 100.0
    bounds = (0.0, 1.0)

    def __init__(self, threshold: float = 0.0, two_classes: bool = False) -> None:
        self.threshold, self.two_classes = threshold, two_classes

    def per_example(self, outputs: NDArray[np.float32], labels: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores outputs `(b, ...)` against the other model's; returns `(b,)`, the share of each example's decisions."""
        one, other = (self._decisions(array.reshape(len(array), -1)) for array in (outputs, labels))
        return np.asarray((one == other).mean(axis=1))

    def _decisions(self, scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        if self.two_classes and scores.shape[1] == 2:
            return np.asarray(scores[:, 1:] > scores[:, :1])
        return np.asarray(scores > self.threshold)
