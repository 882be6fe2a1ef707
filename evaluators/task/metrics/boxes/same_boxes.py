"""Agreement of two detectors."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import SumMetric
from evaluators.task.boxes.decoder import Decoding
from evaluators.task.boxes.detections import Detections, overlaps

IOU = 0.5


class SameBoxes(SumMetric):
    """The share of boxes that both detectors find (F1): the same class, and an overlap of at least 0.5.

    Boxes are matched one to one, the surest first, each with the nearest one that is left.

    Args:
        decoding: Turns the outputs of one detector into boxes.
        other: Likewise those of the other, which come as labels.
        least_score: Score from which a box is an answer.
    """

    name = "agreement"
    unit = "%"
    scale = 100.0

    def __init__(self, decoding: Decoding, other: Decoding, least_score: float = 0.3) -> None:
        self._decodings, self._least = (decoding, other), least_score

    def statistics(self, outputs: Any, labels: Any) -> NDArray[np.float64]:
        """Returns for each image the number of matched boxes, and of boxes of both detectors, `(b, 2)`."""
        found = [decoding(raw) for decoding, raw in zip(self._decodings, (outputs, labels), strict=True)]
        return np.array([self._counts(*pair) for pair in zip(*found, strict=True)], np.float64).reshape(-1, 2)

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the share for each row of sums, in [0, 1]; 1 if neither found a box."""
        matches, boxes = sums.T
        return np.asarray(np.divide(2 * matches, boxes, out=np.ones_like(boxes), where=boxes > 0))

    def _counts(self, some: Detections, others: Detections) -> tuple[int, int]:
        some, others = (found.select(found.scores >= self._least) for found in (some, others))
        order = np.argsort(-some.scores, kind="stable")
        near = overlaps(some.boxes[order], others.boxes)
        near[some.classes[order][:, None] != others.classes[None]] = 0
        n_matches = 0
        for row in range(len(near)):
            best = int(near[row].argmax()) if near.shape[1] else 0
            if near.shape[1] and near[row, best] >= IOU:
                near[:, best] = 0
                n_matches += 1
        return n_matches, len(some) + len(others)
