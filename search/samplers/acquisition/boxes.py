"""What a front leaves to be won: the part of the space that no point of it dominates, cut into disjoint boxes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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


def non_dominated(values: Array) -> NDArray[np.bool_]:
    """Returns which points no other one dominates `(n,)`; of equal points the first.

    Args:
        values: `(n, d)`, to be maximised; a point with NaN is dominated.
    """
    kept = np.zeros(len(values), dtype=np.bool_)
    left = np.flatnonzero(np.isfinite(values).all(axis=1))
    left = left[
        np.argsort(-_ranks(values[left]).sum(axis=1), kind="stable")
    ]  # none is dominated by a later one
    found = []
    while len(left):
        best, left = left[0], left[1:]
        found.append(best)
        left = left[(values[left] > values[best]).any(axis=1)]
    kept[np.array(found, dtype=np.intp)] = True
    return kept


def _ranks(values: Array) -> NDArray[np.intp]:
    """Returns each value's rank on its axis `(n, d)`: a sum of ranks knows no units and no rounding."""
    ranks = [np.unique(column, return_inverse=True)[1] for column in values.T]
    return np.stack(ranks, axis=1) if ranks else np.zeros(values.shape, dtype=np.intp)
