"""Mean average precision of detected boxes, as pycocotools computes it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import PooledMetric
from evaluators.task.boxes.decoder import Decoding
from evaluators.task.boxes.labels import box_labels
from evaluators.task.metrics.boxes.matching import Matched, matched

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Those of pycocotools' Params.
COCO_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100
_CHUNK = 2**19  # numbers that are held at once


class MeanAveragePrecision(PooledMetric):
    """The mean over classes and overlaps of the area under the curve of precision over recall (COCO's AP, for boxes of any size).

    Detections are matched once per image. Precision at 101 recalls follows from the weighted counts, as in `COCOeval.accumulate`:
    integer weights give what images that are repeated so often give, but for the order of equal scores. Classes without a
    labelled box that counts do not count.

    Args:
        decoding: Turns outputs into boxes.
        name: The metric's name.
        thresholds: Overlaps (intersection over union) from which a detection matches.
        most: Detections of an image and class that count at most.
    """

    unit = "%"
    scale = 100.0

    def __init__(
        self, decoding: Decoding, name: str = "map", thresholds: Floats = COCO_THRESHOLDS, most: int = MOST
    ) -> None:
        self.name, self._decoding = name, decoding
        self._thresholds, self._most = np.asarray(thresholds, np.float64), most

    def statistics(self, outputs: Any, labels: NDArray[Any]) -> NDArray[Any]:
        """Returns a `Matched` for each image, `(b,)` objects."""
        rows = np.empty(len(labels), object)
        for row, (found, label) in enumerate(zip(self._decoding(outputs), labels, strict=True)):
            rows[row] = matched(found, box_labels(label), self._thresholds, self._most)
        return rows

    def pooled(self, statistics: NDArray[Any], weights: Floats) -> float:
        """Returns the mean average precision, in [0, 1]; NaN if no labelled box counts."""
        return float(self.pooled_each(statistics, weights[None])[0])

    def pooled_each(self, statistics: NDArray[Any], weights: Floats) -> Floats:
        """Returns the mean average precision for each row of weights, `(m,)`."""
        total, n_classes = np.zeros((2, len(weights)))
        for curve in _curves(statistics):
            values = curve.average_precision(weights)
            has_value = np.isfinite(values)
            total[has_value] += values[has_value]
            n_classes += has_value
        total[n_classes == 0] = np.nan
        return np.asarray(total / np.maximum(n_classes, 1))


@dataclass(frozen=True, eq=False)
class _Curve:
    """All detections of one class, the surest first, as far as precision and recall change with them.

    At every threshold, precision is highest and recall changes where a detection is right; the other ones only count. Rows of
    thresholds with fewer right detections are padded with ones of no weight.

    Attributes:
        detected: Image of each detection, `(k,)`.
        right: Image of each right detection, `(n_thresholds, l)`; the number of images where it is padding.
        steps: Number of detections up to it, likewise.
        ignored: Image of each detection that is neither right nor wrong, threshold by threshold, `(i,)`.
        ignored_from: Number of these at lower thresholds, `(n_thresholds, 1)`.
        ignored_steps: Number of these up to each right detection, `(n_thresholds, l)`.
        wanted: Image of each labelled box that counts, `(m,)`.
    """

    detected: Integers
    right: Integers
    steps: Integers
    ignored: Integers
    ignored_from: Integers
    ignored_steps: Integers
    wanted: Integers

    def average_precision(self, weights: Floats) -> Floats:
        """Returns the mean of the precision over thresholds and recalls for each row of weights, `(m,)`.

        It is NaN where no labelled box has weight.
        """
        rows = max(1, _CHUNK // max(self.right.size, len(self.detected), 1))
        parts = [self._average(weights[start : start + rows]) for start in range(0, len(weights), rows)]
        return np.concatenate([np.empty(0), *parts])

    def _average(self, weights: Floats) -> Floats:
        n_wanted = weights[:, self.wanted].sum(axis=1)
        if not self.right.shape[1]:
            return np.where(n_wanted > 0, 0.0, np.nan)
        right = np.cumsum(_padded(weights)[:, self.right], axis=2)
        counted = _sums(weights[:, self.detected])[:, self.steps]
        if len(self.ignored):
            passed = _sums(weights[:, self.ignored])
            counted -= passed[:, self.ignored_steps] - passed[:, self.ignored_from]
        # precision at a recall is the highest one at this recall or a higher one; 0 where no recall is so high
        precision = right / (counted + np.spacing(1))
        precision = np.maximum.accumulate(precision[..., ::-1], axis=2)[..., ::-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            recall = right / n_wanted[:, None, None]
        # how many of the recalls each right detection is the first to reach
        reached = np.diff(np.searchsorted(RECALLS, recall, side="right"), axis=2, prepend=0)
        values = (precision * reached).sum(axis=(1, 2)) / (len(self.right) * len(RECALLS))
        return np.where(n_wanted > 0, values, np.nan)


def _curves(statistics: NDArray[Any]) -> Iterator[_Curve]:
    """Yields the curve of each class that has a labelled box that counts."""
    images: list[Matched] = [*statistics]
    numbers = np.arange(len(images))
    detected = np.repeat(numbers, [len(image.scores) for image in images])
    wanted = np.repeat(numbers, [len(image.wanted) for image in images])
    classes, scores, right, ignored, wanted_classes = (
        np.concatenate([getattr(image, name) for image in images])
        for name in ("classes", "scores", "right", "ignored", "wanted")
    )
    for k in np.unique(wanted_classes):
        rows = np.flatnonzero(classes == k)
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        yield _curve(detected[rows], right[rows].T, ignored[rows].T, wanted[wanted_classes == k], len(images))


def _curve(detected: Integers, right: Bools, ignored: Bools, wanted: Integers, n_images: int) -> _Curve:
    n_thresholds = len(right)
    shape = (n_thresholds, int(right.sum(axis=1).max(initial=0)))
    images, steps, passed = np.full(shape, n_images), np.full(shape, len(detected)), np.zeros(shape, np.int64)
    n_ignored = ignored.sum(axis=1)
    start = np.cumsum(n_ignored) - n_ignored
    for level, hits in enumerate(right):
        places = np.flatnonzero(hits)
        images[level, : len(places)] = detected[places]
        steps[level, : len(places)] = places + 1
        passed[level] = start[level] + n_ignored[level]
        passed[level, : len(places)] = start[level] + np.cumsum(ignored[level])[places]
    levels = np.nonzero(ignored)
    return _Curve(detected, images, steps, detected[levels[1]], start[:, None], passed, wanted)


def _padded(weights: Floats) -> Floats:
    """Returns the weights `(m, n)` with a further one, 0, in each row."""
    return np.pad(weights, ((0, 0), (0, 1)))


def _sums(weights: Floats) -> Floats:
    """Returns the sums of the first 0, 1, ... of the weights `(m, k)` in each row, `(m, k + 1)`."""
    return np.pad(np.cumsum(weights, axis=1), ((0, 0), (1, 0)))
