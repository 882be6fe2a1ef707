"""Top-k accuracy."""

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import MeanMetric
from spaces.errors import ConfigError


class TopK(MeanMetric):
    """The share of examples whose label is among the k largest outputs; of equal outputs the first count.

    Args:
        k: Number of outputs that count, at least 1.
    """

    unit = "%"
    scale = 100.0
    bounds = (0.0, 1.0)

    def __init__(self, k: int = 5) -> None:
        if type(k) is not int or k < 1:
            raise ConfigError(f"task.metric: k must be a whole number from 1 on, not {k!r}")
        self.k, self.name = k, f"top{k}"

    def per_example(self, outputs: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scores `(n, n_outputs)` outputs against `(n,)` labels; returns `(n,)`, 1 right, 0 wrong."""
        best = np.argsort(-outputs, axis=1, kind="stable")[:, : self.k]
        return np.asarray((best == labels[:, None]).any(axis=1).astype(np.float64))
