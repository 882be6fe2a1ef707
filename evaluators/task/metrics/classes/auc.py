"""The area under the receiver operating characteristic."""

import numpy as np
from numpy.typing import NDArray

from evaluators.task.metrics.classes.scored_classes import ScoredClasses


class AUC(ScoredClasses):
    """The probability that an example of the class has a higher score than one that is not of it."""

    name = "auc"

    def of_sums(self, yes: NDArray[np.float64], no: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the areas: of all pairs of an example of the class and another one, the share in which the first is higher."""
        below = no.sum(1, keepdims=True) - np.cumsum(no, axis=1)
        higher = (yes * (below + no / 2)).sum(1)
        return np.asarray(higher / (yes.sum(1) * no.sum(1)))
