"""Average precision: the area under the curve of precision over recall."""

import numpy as np
from numpy.typing import NDArray

from evaluators.task.metrics.classes.scored_classes import ScoredClasses


class AveragePrecision(ScoredClasses):
    """The mean of the precisions at each threshold, weighted by the gain in recall; over the classes their mean ("mAP")."""

    name = "average_precision"

    def of_sums(self, yes: NDArray[np.float64], no: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the sums over the scores of precision times the gain in recall."""
        hits, alarms = np.cumsum(yes, axis=1), np.cumsum(no, axis=1)
        precision = hits / np.maximum(hits + alarms, 1e-12)
        return np.asarray((precision * yes).sum(1) / yes.sum(1))
