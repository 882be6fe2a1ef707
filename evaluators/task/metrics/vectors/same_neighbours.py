"""Agreement of two models that map examples to vectors."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import SumMetric
from evaluators.task.metrics.vectors.neighbours import Distance, nearest


class SameNeighbours(SumMetric):
    """The share of an example's k nearest others that are also the other model's, mean over the examples.

    Args:
        k: Number of neighbours.
        distance: See `nearest`.
    """

    name = "agreement"
    unit = "%"
    scale = 100.0
    whole: ClassVar[bool] = True

    def __init__(self, k: int = 10, distance: Distance = "cosine") -> None:
        self.k, self.distance = k, distance

    def statistics(self, outputs: NDArray[np.float32], labels: NDArray[np.float32]) -> NDArray[np.float64]:
        """Returns, of vectors `(n, d)` and the other model's, the share of each example's neighbours, and 1, `(n, 2)`."""
        one, other = (nearest(vectors, self.k, self.distance) for vectors in (outputs, labels))
        shared = (one[:, :, None] == other[:, None]).any(axis=2).mean(axis=1)
        return np.stack([shared, np.ones(len(shared))], axis=1)

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the mean share, from the sums `(m, 2)`."""
        return np.asarray(sums[:, 0] / sums[:, 1])
