"""Recall at k: whether vectors of the same class lie near one another."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import SumMetric
from evaluators.task.metrics.vectors.neighbours import Distance, nearest
from spaces.errors import ConfigError


class RecallAtK(SumMetric):
    """The share of examples with one of their class among the k nearest others of the split; an example alone in its class does not count.

    The gallery is the whole split, but for the example itself, also in the bootstrap: its intervals are for other queries.

    Args:
        k: Number of neighbours, at least 1.
        distance: See `nearest`.
    """

    unit = "%"
    scale = 100.0
    whole: ClassVar[bool] = True

    def __init__(self, k: int = 1, distance: Distance = "cosine") -> None:
        if type(k) is not int or k < 1:
            raise ConfigError(f"task.metric: k must be a whole number from 1 on, not {k!r}")
        self.k, self.distance, self.name = k, distance, f"recall_at_{k}"

    def statistics(self, outputs: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns, of vectors `(n, d)` and classes `(n,)`, whether a neighbour has the class, and whether any other has it, `(n, 2)`."""
        hits = (labels[nearest(outputs, self.k, self.distance)] == labels[:, None]).any(axis=1)
        _, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
        return np.stack([hits, counts[numbers.reshape(-1)] > 1], axis=1).astype(np.float64)

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the share, from the sums `(m, 2)`; NaN if all examples are alone in their classes."""
        return np.asarray(np.where(sums[:, 1] > 0, sums[:, 0] / np.maximum(sums[:, 1], 1.0), np.nan))
