"""What a front leaves to be won: the part of the space that no point of it dominates, cut into disjoint boxes."""

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
    """Cuts the region that a front leaves into boxes.

    Starts from the whole region and cuts what each point dominates out of every box that it reaches into, axis by axis.

    Args:
        front: `(m, d)`, to be maximised; points that are not above the reference on every axis cut nothing away.
        reference: `(d,)`.
        max_boxes: Give up beyond so many (their number grows steeply with d); None never gives up.

    Returns:
        The boxes, or None if there are more than `max_boxes`.
    """
    d = len(reference)
    low, high = np.array([reference], dtype=np.float64), np.full((1, d), np.inf)
    points = front[(front > reference).all(axis=1)]
    points = points[non_dominated(points)]
    for point in points[
        np.argsort(-points[:, -1], kind="stable")
    ]:  # descending: the fewest cuts are cut again
        reached = (low < point).all(axis=1)
        pieces = [(low[~reached], high[~reached]), *_outside(low[reached], high[reached], point)]
        low, high = (np.concatenate(sides) for sides in zip(*pieces, strict=True))
        if max_boxes is not None and len(low) > max_boxes:
            return None
    return Boxes(low, high)


def _outside(low: Array, high: Array, point: Array) -> list[tuple[Array, Array]]:
    """Returns what is left of boxes once the corner that `point` dominates is cut off: up to d pieces of each."""
    pieces = []
    below = np.minimum(high, point)
    for axis in reversed(range(len(point))):
        kept = high[:, axis] > point[axis]
        piece_low, piece_high = low[kept].copy(), high[kept].copy()
        piece_low[:, axis] = point[axis]
        piece_high[:, axis + 1 :] = below[kept, axis + 1 :]
        pieces.append((piece_low, piece_high))
    return pieces
