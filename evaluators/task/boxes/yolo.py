"""Raw heads of the YOLO family."""

import numpy as np
from numpy.typing import NDArray

from evaluators.task.boxes.decoder import Decoder, RawOutputs, check_count, check_share, sole_output
from evaluators.task.boxes.detections import Detections, detections, from_centres, suppressed
from spaces.errors import InputError


class YoloHead(Decoder):
    """Reads one output `(n, 4 + n_classes, m)` as YOLOv8 exports it: centre, size, and a probability for each class.

    Centres and sizes are pixels of the network's input; non-maximum suppression is done here, class by class.

    Args:
        least_score: Probability from which a box counts. Average precision needs unsure boxes, too.
        iou: Overlap from which the less sure box is left out.
        most: Boxes of an image that are kept at most.
        candidates: Surest boxes that enter the suppression.
        objectness: Whether the fifth number is the probability that there is anything, by which those of the classes are
            multiplied (YOLOv5: `(n, m, 5 + n_classes)`).
        boxes_first: Whether boxes lie along the second axis, `(n, m, 4 + n_classes)`.
        several_classes: Whether a box counts for each class that reaches `least_score`, or only for its likeliest.
    """

    def __init__(
        self,
        least_score: float = 0.001,
        iou: float = 0.7,
        most: int = 300,
        candidates: int = 1000,
        objectness: bool = False,
        boxes_first: bool = False,
        several_classes: bool = True,
    ) -> None:
        check_share("iou", iou)
        check_share("least_score", least_score)
        check_count("most", most)
        check_count("candidates", candidates)
        self._least, self._iou, self._most, self._candidates = least_score, iou, most, candidates
        self._start = 5 if objectness else 4
        self._boxes_first, self._several = boxes_first, several_classes

    def decode(self, outputs: RawOutputs) -> list[Detections]:
        """Returns the boxes of each image, the surest first."""
        return [self._of_image(rows) for rows in self._rows(outputs)]

    def n_classes(self, outputs: RawOutputs) -> int | None:
        """Returns the number of classes."""
        return int(self._rows(outputs).shape[2]) - self._start

    def _rows(self, outputs: RawOutputs) -> NDArray[np.float64]:
        """Returns `(n, m, 4 or 5 + n_classes)`."""
        numbers = f"{self._start} + n_classes"
        layout = f"(n, m, {numbers})" if self._boxes_first else f"(n, {numbers}, m)"
        raw = sole_output(outputs, 3, layout)
        rows = raw if self._boxes_first else raw.transpose(0, 2, 1)
        if rows.shape[2] <= self._start:
            raise InputError(f"the output has shape {raw.shape}, but the decoder takes {layout}")
        return rows

    def _of_image(self, rows: NDArray[np.float64]) -> Detections:
        scores = rows[:, self._start :]
        if self._start == 5:
            scores = scores * rows[:, 4:5]
        if self._several:
            found, classes = np.nonzero(scores >= self._least)
        else:
            likeliest = scores.argmax(axis=1)
            found = np.flatnonzero(scores.max(axis=1) >= self._least)
            classes = likeliest[found]
        boxes = from_centres(rows[found, :4])
        every = detections(boxes, scores[found, classes], classes)
        return suppressed(every, self._iou, self._most, self._candidates)
