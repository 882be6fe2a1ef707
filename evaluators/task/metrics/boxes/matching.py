"""Matches detections with labelled boxes as pycocotools' `COCOeval.evaluateImg` does, at all thresholds together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.task.boxes.detections import Detections
from evaluators.task.boxes.labels import COUNTS, CROWD, BoxLabels
from spaces.extras import check_extra, extra_module

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Matched:
    """What average precision has to know of one image.

    Attributes:
        classes: Class of each detection, `(k,)`.
        scores: Its score, `(k,)`.
        right: Whether it matches a box that counts, at each threshold, `(k, n_thresholds)`.
        ignored: Whether it matches a box that need not be found, likewise.
        wanted: Class of each labelled box that counts, `(m,)`.
    """

    classes: NDArray[np.int64]
    scores: Floats
    right: Bools
    ignored: Bools
    wanted: NDArray[np.int64]


def matched(found: Detections, label: BoxLabels, thresholds: Floats, most: int) -> Matched:
    """Matches the detections of an image, class by class, the surest first.

    Args:
        found: The detections.
        label: The labelled boxes.
        thresholds: Overlaps from which a detection matches, `(n_thresholds,)`.
        most: Detections of a class that count at most: the surest.
    """
    rows = _surest(found, most)
    right, ignored = np.zeros((2, len(rows), len(thresholds)), bool)
    for k in np.intersect1d(found.classes, label.classes):
        of_class = np.flatnonzero(label.classes == k)
        # boxes that count come first, as in COCOeval
        of_class = of_class[np.argsort(label.ignored[of_class] != COUNTS, kind="stable")]
        states = label.ignored[of_class]
        span = found.classes[rows] == k
        shares = overlaps_of(found.boxes[rows[span]], label.boxes[of_class], states == CROWD)
        right[span], ignored[span] = _match(shares, states, thresholds)
    ignored |= _are_inverted(found.boxes[rows])[:, None] & ~right
    wanted = label.classes[label.ignored == COUNTS]
    return Matched(found.classes[rows], found.scores[rows], right, ignored, wanted)


def _surest(found: Detections, most: int) -> NDArray[np.int64]:
    """Returns the rows of the `most` surest detections of each class, class by class, the surest first."""
    rows = np.lexsort((-found.scores, found.classes))
    classes = found.classes[rows]
    rank = np.arange(len(rows)) - np.searchsorted(classes, classes)
    return rows[rank < most]


def _match(shares: Floats, states: NDArray[np.int64], thresholds: Floats) -> tuple[Bools, Bools]:
    """Matches detections of one class in the order of their scores.

    Args:
        shares: Overlap of each detection with each box, `(k, m)`; boxes that count come first.
        states: Whether the boxes count, `(m,)`.
        thresholds: `(n_thresholds,)`.

    Returns:
        Whether a detection matches a box that counts, and whether one that does not, `(k, n_thresholds)` each.
    """
    k, m = shares.shape
    right, ignored = (np.zeros((k, len(thresholds)), bool) for _ in range(2))
    if not m:
        return right, ignored
    least = np.minimum(thresholds, 1 - 1e-10)[:, None]
    n_counting = int((states == COUNTS).sum())
    is_crowd = states == CROWD
    taken = np.zeros((len(thresholds), m), bool)
    levels = np.arange(len(thresholds))
    for row in np.flatnonzero(shares.max(axis=1) >= least.min()).tolist():
        free = np.where((shares[row] >= least) & (is_crowd | ~taken), shares[row], -1.0)
        hit = np.zeros(len(thresholds), bool)
        for mark, boxes in ((right, slice(0, n_counting)), (ignored, slice(n_counting, m))):
            part = free[:, boxes]
            if not part.shape[1]:
                continue
            # of equal overlaps the last one, as in COCOeval
            best = part.shape[1] - 1 - part[:, ::-1].argmax(axis=1)
            matches = ~hit & (part[levels, best] >= 0)
            mark[row] = matches
            taken[levels[matches], best[matches] + boxes.start] = True
            hit |= matches
    return right, ignored


def _are_inverted(boxes: Floats) -> Bools:
    """Returns whether width times height is negative; COCOeval takes such boxes for ones out of the range of areas."""
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) < 0)


def overlaps_of(some: Floats, others: Floats, crowd: Bools) -> Floats:
    """Returns pycocotools' overlap of each of `k` boxes with each of `m`, `(k, m)`; with a crowd, the part that lies in it."""
    if not len(some) or not len(others):
        return np.zeros((len(some), len(others)))
    mask = extra_module("pycocotools.mask", "task=detection")
    sides = [np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1) for boxes in (some, others)]
    return np.asarray(mask.iou(*sides, crowd.astype(np.uint8)))


def check_pycocotools() -> None:
    """Raises ConfigError if the package `pycocotools` is missing."""
    check_extra("pycocotools", "task=detection")
