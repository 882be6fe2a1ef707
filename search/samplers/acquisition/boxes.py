"""The region that no point of a front dominates, partitioned into disjoint boxes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.record.nondomination import non_dominated

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Boxes:
    """Disjoint boxes `(low, high]` that fill the region above a reference point and below no point of a front.

    All axes are to be maximised.

    Attributes:
        low: `(n_boxes, d)`.
        high: `(n_boxes, d)`; infinite where nothing bounds the box.
    """

    low: Array
    high: Array

    def __len__(self) -> int:
        return len(self.low)


def not_dominated(front: Array, reference: Array, max_boxes: int | None = None) -> Boxes | None:
    """Partitions the region above the reference point that no point of the front dominates into boxes.

    Starts from the whole region; every point removes the region that it dominates from each box that it
    intersects, axis by axis.

    Args:
        front: `(m, d)`, to be maximised; points that are not above the reference on every axis have no
            effect.
        reference: `(d,)`.
        max_boxes: The most boxes allowed (their number grows steeply with d); None sets no limit.

    Returns:
        The boxes, or None if there are more than `max_boxes`.
    """
    d = len(reference)
    low, high = np.array([reference], dtype=np.float64), np.full((1, d), np.inf)
    points = front[(front > reference).all(axis=1)]
    points = points[non_dominated(points)]
    for point in points[
        np.argsort(-points[:, -1], kind="stable")
    ]:  # descending along the last axis: gives the fewest boxes
        reached = (low < point).all(axis=1)
        pieces = [(low[~reached], high[~reached]), *_outside(low[reached], high[reached], point)]
        low, high = (np.concatenate(sides) for sides in zip(*pieces, strict=True))
        if max_boxes is not None and len(low) > max_boxes:
            return None
    return Boxes(low, high)


def _outside(low: Array, high: Array, point: Array) -> list[tuple[Array, Array]]:
    """Returns the boxes without the region that `point` dominates: up to d pieces `(low, high)` of each."""
    pieces = []
    below = np.minimum(high, point)
    for axis in reversed(range(len(point))):
        kept = high[:, axis] > point[axis]
        piece_low, piece_high = low[kept].copy(), high[kept].copy()
        piece_low[:, axis] = point[axis]
        piece_high[:, axis + 1 :] = below[kept, axis + 1 :]
        pieces.append((piece_low, piece_high))
    return pieces
