"""Outputs that are boxes already."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.task.boxes.decoder import Decoder, RawOutputs, check_count, check_share, sole_output
from evaluators.task.boxes.detections import Detections, Floats, detections, from_centres, suppressed
from spaces.errors import ConfigError, InputError

Corners = Literal["xyxy", "yxyx", "xywh", "cxcywh"]
FORMATS = ("xyxy", "yxyx", "xywh", "cxcywh")


class DecodedBoxes(Decoder):
    """Reads boxes, scores and classes from outputs of their own, or from one output `(n, m, 6)` of x1, y1, x2, y2, score, class.

    Args:
        boxes: Name of the output of boxes, `(n, m, 4)`; None: one output holds all.
        scores: Name of the output of scores: `(n, m)`, or `(n, m, n_classes)`, one for each class of a box.
        classes: Name of the output of class numbers, `(n, m)`; None where scores are given for each class.
        format: The four numbers of a box: `xyxy` and `yxyx` are two corners, `xywh` the upper left corner and the size,
            `cxcywh` the centre and the size.
        size: `[height, width]` of the network's input if boxes are shares of it; None if they are pixels.
        first_class: Class number that means class 0; boxes of lower ones are background.
        least_score: Boxes with a lower score are padding.
        iou: Overlap from which non-maximum suppression leaves the less sure box out; None if the network has done it.
        most: Boxes of an image that are kept at most.
    """

    def __init__(
        self,
        boxes: str | None = None,
        scores: str | None = None,
        classes: str | None = None,
        format: Corners = "xyxy",
        size: Sequence[int] | None = None,
        first_class: int = 0,
        least_score: float = 0.001,
        iou: float | None = None,
        most: int = 300,
    ) -> None:
        if (boxes is None) != (scores is None) or (boxes is None and classes is not None):
            raise ConfigError("task.decoder: `boxes` and `scores` must both be named, or neither")
        if format not in FORMATS:
            raise ConfigError(f"task.decoder.format must be one of {', '.join(FORMATS)}, not {format!r}")
        if size is not None and (len(size) != 2 or not all(side > 0 for side in size)):
            raise ConfigError(f"task.decoder.size must be [height, width], not {size!r}")
        check_share("iou", iou)
        check_count("most", most)
        self._boxes, self._scores, self._classes = boxes, scores, classes
        self.names = tuple(name for name in (boxes, scores, classes) if name is not None)
        self._format, self._first = format, first_class
        self._size = None if size is None else (float(size[0]), float(size[1]))
        self._least, self._iou, self._most = least_score, iou, most

    def decode(self, outputs: RawOutputs) -> list[Detections]:
        """Returns the boxes of each image, the surest first."""
        boxes, scores, classes = self._parts(outputs)
        if (
            boxes.ndim != 3
            or boxes.shape[2] != 4
            or scores.shape != classes.shape
            or scores.shape != boxes.shape[:2]
        ):
            raise InputError(
                f"boxes {boxes.shape}, scores {scores.shape} and classes {classes.shape} do not fit: (n, m, 4), (n, m) and "
                "(n, m) are needed"
            )
        corners, numbers = self._corners(boxes), np.rint(classes) - self._first
        return [self._of_image(*parts) for parts in zip(corners, scores, numbers, strict=True)]

    def _parts(self, outputs: RawOutputs) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        if self._boxes is None:
            rows = sole_output(outputs, 3, "(n, m, 6): corners, score, class")
            if rows.shape[2] != 6:
                raise InputError(f"the output has shape {rows.shape}, but the decoder takes (n, m, 6)")
            return rows[..., :4], rows[..., 4], rows[..., 5]
        for name in self.names:
            if name not in outputs:
                raise InputError(
                    f"task.decoder names the output {name!r}, but there are {', '.join(outputs)}"
                )
        boxes, scores = outputs[self._boxes], outputs[self._scores or ""]
        if self._classes is not None:
            return boxes, scores, outputs[self._classes]
        if scores.ndim != 3:
            raise InputError(
                f"task.decoder.classes is null, so scores must be (n, m, n_classes), not {scores.shape}"
            )
        n, m, k = scores.shape
        numbers = np.broadcast_to(np.arange(k), scores.shape).reshape(n, m * k)
        return np.repeat(boxes, k, axis=1), scores.reshape(n, m * k), numbers

    def _corners(self, boxes: NDArray[Any]) -> Floats:
        found: Floats = boxes.astype(np.float64)
        if self._format == "yxyx":
            found = found[..., [1, 0, 3, 2]]
        elif self._format == "cxcywh":
            found = from_centres(found)
        elif self._format == "xywh":
            found = np.concatenate([found[..., :2], found[..., :2] + found[..., 2:]], axis=-1)
        if self._size is None:
            return found
        height, width = self._size
        return np.asarray(found * np.array([width, height, width, height]))

    def _of_image(self, boxes: Floats, scores: NDArray[Any], classes: NDArray[Any]) -> Detections:
        found = detections(boxes, scores, classes)
        real = (found.scores >= self._least) & (found.classes >= 0)
        return suppressed(found.select(real), self._iou, self._most)
