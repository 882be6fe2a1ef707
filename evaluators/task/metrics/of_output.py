"""A metric of one of several outputs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Labels, PooledMetric


class OfOutput(PooledMetric):
    """Another metric, which gets one of several outputs, and of labels that are outputs themselves that one, too.

    Args:
        metric: The metric, under whose name the value is reported.
        output: Name of the output.
    """

    def __init__(self, metric: PooledMetric, output: str) -> None:
        self.name, self.unit, self.scale, self.direction = (
            metric.name,
            metric.unit,
            metric.scale,
            metric.direction,
        )
        self._metric, self._output = metric, output

    def statistics(self, outputs: Any, labels: Labels | Mapping[str, Any]) -> NDArray[Any]:
        """Returns what the metric has to know of each example, `(b, ...)`."""
        of_it = labels[self._output] if isinstance(labels, Mapping) else labels
        return self._metric.statistics(outputs[self._output], of_it)

    def pooled(self, statistics: NDArray[Any], weights: NDArray[np.float64]) -> float:
        """Returns the metric, before `scale`, of examples that count `weights` times each."""
        return self._metric.pooled(statistics, weights)

    def pooled_each(self, statistics: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns `pooled` for each row of weights `(m, n)`."""
        return self._metric.pooled_each(statistics, weights)
