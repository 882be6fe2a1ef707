"""Metrics of how far the positions that are given a class are those that have it."""

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import SumMetric
from evaluators.task.metrics.segmentation.class_maps import ClassMaps


class Overlap(SumMetric):
    """The mean over the classes of a function of counts of positions; classes that neither occur nor are given do not count.

    Counts are summed over all examples first. Positions with a label below 0 do not count.

    Args:
        maps: Turns outputs into class maps.
    """

    unit = "%"
    scale = 100.0

    def __init__(self, maps: ClassMaps) -> None:
        self.maps = maps

    @abstractmethod
    def of_counts(
        self, both: NDArray[np.float64], given: NDArray[np.float64], labelled: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Returns a value for each class, `(m, C)`, where `given + labelled` is above 0.

        Args:
            both: Positions that have the class and are given it, `(m, C)`.
            given: Positions that are given it.
            labelled: Positions that have it.
        """

    def statistics(self, outputs: NDArray[np.generic], labels: NDArray[np.generic]) -> NDArray[np.float64]:
        """Returns the three counts of each class, `(b, 3, C)`."""
        pairs = self.maps.with_labels(outputs, labels)
        return np.concatenate([_counts(found, wanted, self.maps.n_classes) for found, wanted in pairs])

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the mean over the classes that occur or are given, from the sums `(m, 3 * C)`; NaN if there are none."""
        both, given, labelled = np.moveaxis(sums.reshape(len(sums), 3, -1), 1, 0)
        exists = given + labelled > 0
        values = np.where(exists, self.of_counts(both, np.where(exists, given, 1.0), labelled), 0.0)
        n = exists.sum(1)
        return np.asarray(np.where(n > 0, values.sum(1) / np.maximum(n, 1), np.nan))


class MIoU(Overlap):
    """Mean intersection over union (the Jaccard index)."""

    name = "miou"

    def of_counts(
        self, both: NDArray[np.float64], given: NDArray[np.float64], labelled: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Returns intersection over union."""
        return both / (given + labelled - both)


class Dice(Overlap):
    """Mean Dice coefficient: twice the intersection over the sum of both areas (the F1 of positions)."""

    name = "dice"

    def of_counts(
        self, both: NDArray[np.float64], given: NDArray[np.float64], labelled: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Returns the Dice coefficient."""
        return 2 * both / (given + labelled)


def _counts(found: NDArray[np.int64], wanted: NDArray[np.generic], n_classes: int) -> NDArray[np.float64]:
    """Returns positions that are both, given and labelled, by example and class: `(b, 3, C)`."""
    b = len(wanted)
    labels = wanted.reshape(b, -1).astype(np.int64)
    given = found.reshape(b, -1)
    counted = labels >= 0
    place = n_classes * np.arange(b)[:, None]
    known = counted & (given >= 0) & (given < n_classes)
    chosen = (
        (labels, counted & (labels == given)),
        (given, known),
        (labels, counted),
    )
    counts = [np.bincount((place + of)[where], minlength=b * n_classes) for of, where in chosen]
    return np.stack([count.reshape(b, n_classes) for count in counts], axis=1).astype(np.float64)
