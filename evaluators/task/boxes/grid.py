"""The head of the zoo's tiny detector: a box for each cell of a grid."""

import numpy as np
from numpy.typing import NDArray

from evaluators.task.boxes.decoder import Decoder, RawOutputs, check_count, check_share, sigmoid, sole_output
from evaluators.task.boxes.detections import Detections, detections, from_centres, suppressed
from spaces.errors import InputError

BOX = 5  # numbers before those of the classes
_MOST_LOG = 8.0  # a side is at most 3,000 cells


class GridHead(Decoder):
    """Reads one output `(n, 5 + n_classes, rows, columns)`, as `spaces.models.zoo.digit_detector` yields it.

    The numbers of a cell are: logit of the presence of a box whose centre lies in it; logits of the centre's x and y within the cell;
    logarithms of width and height, in cells; logits of the classes. The score is the presence times the class's softmax.

    Args:
        stride: Pixels of the network's input along a cell's side.
        least_score: Score from which a box counts.
        iou: Overlap from which the less sure box is left out.
        most: Boxes of an image that are kept at most.
    """

    def __init__(self, stride: int = 4, least_score: float = 0.01, iou: float = 0.5, most: int = 100) -> None:
        check_share("iou", iou)
        check_share("least_score", least_score)
        check_count("most", most)
        check_count("stride", stride)
        self._stride, self._least, self._iou, self._most = stride, least_score, iou, most

    def decode(self, outputs: RawOutputs) -> list[Detections]:
        """Returns the boxes of each image, the surest first."""
        raw = self._head(outputs).astype(np.float64)
        n, _, rows, columns = raw.shape
        y, x = np.mgrid[:rows, :columns]
        centres = sigmoid(raw[:, 1:3]) + np.stack([x, y])
        sizes = np.exp(raw[:, 3:BOX].clip(-_MOST_LOG, _MOST_LOG))
        boxes = from_centres(self._stride * np.moveaxis(np.concatenate([centres, sizes], axis=1), 1, -1))
        scores = sigmoid(raw[:, :1]) * _softmax(raw[:, BOX:])
        flat = np.moveaxis(scores, 1, -1).reshape(n, rows * columns, -1)
        return [self._of_image(*parts) for parts in zip(boxes.reshape(n, -1, 4), flat, strict=True)]

    def n_classes(self, outputs: RawOutputs) -> int | None:
        """Returns the number of classes."""
        return int(self._head(outputs).shape[1]) - BOX

    def _head(self, outputs: RawOutputs) -> NDArray[np.float64]:
        layout = "(n, 5 + n_classes, rows, columns)"
        raw = sole_output(outputs, 4, layout)
        if raw.shape[1] <= BOX:
            raise InputError(f"the output has shape {raw.shape}, but the decoder takes {layout}")
        return raw

    def _of_image(self, boxes: NDArray[np.float64], scores: NDArray[np.float64]) -> Detections:
        cells, classes = np.nonzero(scores >= self._least)
        return suppressed(detections(boxes[cells], scores[cells, classes], classes), self._iou, self._most)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
