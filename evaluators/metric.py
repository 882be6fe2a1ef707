"""The metric interface: a metric scores a model's outputs example by example."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Metric(Protocol):
    """Scores outputs example by example, so that differences can be paired.

    Attributes:
        name: e.g. `top1`; becomes `metric.top1`.
        unit: e.g. `%`.
        scale: Factor from the mean score of the examples to the metric (100 for per cent).
    """

    name: str
    unit: str
    scale: float

    def per_example(self, outputs: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scores `(n, n_outputs)` outputs against `(n,)` labels; returns `(n,)`, higher is better."""
