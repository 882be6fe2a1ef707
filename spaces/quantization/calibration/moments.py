"""Sums over activations per channel, in an order that does not depend on batches."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass
class ChannelSums:
    """Sums over each channel of one tensor.

    Attributes:
        axis: The channel axis; None for only the sum of squares of all values.
        sums: Sum of the values of each channel, `(n_channels,)`; 0 without an axis.
        squares: Sum of their squares, same shape.
        n_values: Number of values in each sum.
    """

    axis: int | None
    sums: Floats
    squares: Floats
    n_values: int = 0

    @classmethod
    def empty(cls, axis: int | None) -> "ChannelSums":
        """Returns sums over nothing."""
        return cls(axis, np.zeros(1), np.zeros(1))

    def add(self, values: NDArray[np.float32]) -> None:
        """Adds a batch `(n_examples, ...)`."""
        sums, squares = _by_example(values, self.axis)
        self.sums, self.squares = _added(self.sums, sums), _added(self.squares, squares)
        self.n_values += values.size // len(self.sums)


def _added(total: Floats, rows: Floats) -> Floats:
    """Adds the rows one after another, so that the rounding does not depend on batches."""
    if len(rows) == 1:
        return np.asarray(total + rows[0])
    start = np.broadcast_to(total, rows.shape[1:])
    return np.asarray(np.add.accumulate(np.vstack([start[None], rows]), axis=0)[-1])


def _by_example(values: NDArray[np.float32], axis: int | None) -> tuple[Floats, Floats]:
    """Returns the sum and the sum of squares of each example's channels, both `(n_examples, n_channels)`."""
    n = len(values)
    if axis is None:  # again in rows that are short enough for float32
        wide = values.reshape(n, values.shape[1] if values.ndim > 2 else 1, -1)
        return np.zeros((n, 1)), np.vecdot(wide, wide).astype(np.float64).sum(axis=1, keepdims=True)
    rows = np.moveaxis(values, axis, 1).reshape(n, values.shape[axis], -1)
    if rows.shape[2] == 1:
        exact = rows[:, :, 0].astype(np.float64)
        return exact, exact * exact
    # Rows of an image are short enough for float32, whose rounding is far below that of any grid.
    sums = np.einsum("ncs->nc", rows)  # several times as fast as rows.sum(axis=2)
    return sums.astype(np.float64), np.vecdot(rows, rows).astype(np.float64)
