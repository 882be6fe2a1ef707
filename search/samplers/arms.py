"""The arms of the bandit: an adaptive partition of the unit cube into boxes, finer where there were more pulls."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Box:
    """One arm.

    Attributes:
        low: `(d,)`, inclusive.
        high: `(d,)`, exclusive.
    """

    low: Array
    high: Array

    def holds(self, points: Array) -> Array:
        """Returns the probability that each point lies in the box, `(n,)`.

        It is 0 or 1. A point that is NaN along an axis is taken as uniform there: the probability is then the
        length of the box along that axis.

        Args:
            points: `(n, d)`.
        """
        inside = (self.low <= points) & (points < self.high)
        return np.asarray(np.where(np.isnan(points), self.high - self.low, inside).prod(axis=1))

    def draw(self, rng: np.random.Generator) -> Array:
        """Returns a point `(d,)`, uniform in the box."""
        return rng.uniform(self.low, self.high)

    def halves(self, n_cells: Sequence[int | None], tolerance: float) -> "tuple[Box, Box] | None":
        """Halves the box along its longest side that can be cut, at a cell boundary if the axis has cells.

        Args:
            n_cells: Per axis, the number of equal cells of [0, 1]; None if the axis is continuous.
            tolerance: Sides of at most this length are not cut.

        Returns:
            Both halves, or None if every side is too short.
        """
        sides = self.high - self.low
        for axis in np.argsort(-sides, kind="stable"):
            middle = _middle(float(self.low[axis]), float(self.high[axis]), n_cells[axis])
            if middle is not None and sides[axis] > tolerance:
                below, above = self.high.copy(), self.low.copy()
                below[axis] = above[axis] = middle
                return Box(self.low, below), Box(above, self.high)
        return None


def _middle(low: float, high: float, n_cells: int | None) -> float | None:
    """Returns the position at which to cut a side; None if it is a single cell."""
    if n_cells is None:
        return (low + high) / 2
    first, last = round(low * n_cells), round(high * n_cells)
    return (first + last) // 2 / n_cells if last - first > 1 else None


def partition(
    points: Array, weights: Array, n_cells: Sequence[int | None], min_pulls: float, tolerance: float
) -> list[Box]:
    """Returns the arms: the unit cube, halved recursively wherever the weight of a box's points is large enough.

    The partition is a function of the points and their weights alone: as weights decay, boxes are merged
    again.

    Args:
        points: Earlier pulls, `(n, d)` in [0, 1), NaN along an axis for which a pull has no value.
        weights: Weight of each pull, `(n,)`.
        n_cells: Per axis, the number of its cells; None if it is continuous.
        min_pulls: A box is cut if the sum of its pulls' weights is at least this.
        tolerance: Sides of at most this length are not cut.
    """

    def leaves(box: Box) -> Iterator[Box]:
        halves = box.halves(n_cells, tolerance) if box.holds(points) @ weights >= min_pulls else None
        if halves is None:
            yield box
            return
        for half in halves:
            yield from leaves(half)

    d = len(n_cells)
    return list(leaves(Box(np.zeros(d), np.ones(d))))
