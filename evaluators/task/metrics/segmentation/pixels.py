"""Shares of positions."""

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import MeanMetric, SumMetric
from evaluators.task.metrics.segmentation.class_maps import ClassMaps


class PixelAccuracy(SumMetric):
    """The share of all positions with a label, 0 or above, that are given it.

    Args:
        maps: Turns outputs into class maps.
    """

    name = "pixel_accuracy"
    unit = "%"
    scale = 100.0

    def __init__(self, maps: ClassMaps) -> None:
        self.maps = maps

    def statistics(self, outputs: NDArray[np.generic], labels: NDArray[np.generic]) -> NDArray[np.float64]:
        """Returns the numbers of right positions and of labelled ones, `(b, 2)`."""
        parts = []
        for found, wanted in self.maps.with_labels(outputs, labels):
            right = (found == wanted) & (wanted >= 0)
            parts.append(np.stack([right.sum((1, 2)), (wanted >= 0).sum((1, 2))], axis=1))
        return np.concatenate(parts).astype(np.float64)

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the shares, from the sums `(m, 2)`; NaN without labelled positions."""
        return np.asarray(np.where(sums[:, 1] > 0, sums[:, 0] / np.maximum(sums[:, 1], 1), np.nan))


class SamePixels(MeanMetric):
    """The share of positions whose class is the other model's.

    Args:
        maps: Turns outputs into class maps.
    """

    name = "agreement"
    unit = "%"
    scale = 100.0
    bounds = (0.0, 1.0)

    def __init__(self, maps: ClassMaps) -> None:
        self.maps = maps

    def per_example(self, outputs: NDArray[np.generic], labels: NDArray[np.generic]) -> NDArray[np.float64]:
        """Scores outputs `(b, ...)` against the other model's; returns `(b,)`."""
        return np.asarray((self.maps(outputs) == self.maps(labels)).mean((1, 2)))
