"""Detected boxes of one image, the overlap of boxes, and non-maximum suppression."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_BLOCK = 64  # boxes whose overlaps with all are computed together


@dataclass(frozen=True)
class Detections:
    """What a network found in one image, in any order.

    Attributes:
        boxes: Corners `(k, 4)` float64: x1, y1, x2, y2, in pixels of the network's input.
        scores: `(k,)` float64, higher for a surer box.
        classes: `(k,)` int64, from 0 on.
    """

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, rows: NDArray[np.generic]) -> "Detections":
        """Returns the boxes of these rows or of this mask, in the rows' order."""
        return Detections(self.boxes[rows], self.scores[rows], self.classes[rows])


def detections(
    boxes: NDArray[np.generic], scores: NDArray[np.generic], classes: NDArray[np.generic]
) -> Detections:
    """Returns detections from arrays of any numeric types."""
    return Detections(boxes.astype(np.float64), scores.astype(np.float64), classes.astype(np.int64))


def from_centres(boxes: NDArray[np.generic]) -> Floats:
    """Returns corners `(..., 4)` of boxes given as centre x, centre y, width, height."""
    centre, half = boxes[..., :2].astype(np.float64), boxes[..., 2:].astype(np.float64) / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def overlaps(some: Floats, others: Floats) -> Floats:
    """Returns the intersection over union of each of `k` boxes with each of `m`, `(k, m)`; 0 where both have no area."""
    corner = np.minimum(some[:, None, 2:], others[None, :, 2:]) - np.maximum(
        some[:, None, :2], others[None, :, :2]
    )
    common = corner.clip(min=0).prod(axis=2)
    total = areas(some)[:, None] + areas(others)[None] - common
    return np.asarray(np.divide(common, total, out=np.zeros_like(common), where=total > 0))


def areas(boxes: Floats) -> Floats:
    """Returns the areas of boxes `(k, 4)`; 0 where corners are in the wrong order."""
    sides: Floats = (boxes[:, 2:] - boxes[:, :2]).clip(min=0)
    return np.asarray(sides.prod(axis=1))


def suppressed(found: Detections, iou: float | None, most: int, candidates: int = 1000) -> Detections:
    """Non-maximum suppression: leaves out each box that overlaps a surer one of its class too much.

    Args:
        found: The boxes of one image.
        iou: Overlap above which the less sure box is left out; None keeps all.
        most: Boxes that are kept at most.
        candidates: Surest boxes that are looked at.

    Returns:
        The boxes that are left, the surest first.
    """
    order = np.argsort(-found.scores, kind="stable")
    if iou is None:
        return found.select(order[:most])
    left = order[:candidates]
    kept: list[np.int64] = []
    while len(left) and len(kept) < most:
        n = min(_BLOCK, len(left))
        near = overlaps(found.boxes[left[:n]], found.boxes[left]) > iou
        clash = near & (found.classes[left[:n], None] == found.classes[None, left])
        alive = np.ones(len(left), bool)
        for row in range(n):
            if alive[row]:
                kept.append(left[row])
                alive &= ~clash[row]
        alive[:n] = False
        left = left[alive]
    return found.select(np.asarray(kept[:most], np.int64))
