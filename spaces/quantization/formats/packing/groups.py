"""Groups of consecutive inputs that share a scale."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaces.errors import StageError

Weight = NDArray[np.float32]
Group = int | str
"""`tensor`, `channel`, or a number of consecutive inputs of a channel."""


def as_matrix(weight: NDArray[Any], axis: int) -> NDArray[Any]:
    """Returns a weight as `(n_channels, n_inputs)`."""
    return np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)


def from_matrix(matrix: NDArray[Any], shape: tuple[int, ...], axis: int) -> NDArray[Any]:
    """Undoes `as_matrix`."""
    moved = (shape[axis], *(n for i, n in enumerate(shape) if i != axis % len(shape)))
    return np.ascontiguousarray(np.moveaxis(matrix.reshape(moved), 0, axis))


def matrix_shape(shape: tuple[int, ...], axis: int) -> tuple[int, int]:
    """Returns the shape of `as_matrix`."""
    n = int(np.prod(shape, dtype=np.int64))
    return shape[axis], n // shape[axis] if shape[axis] else 0


@dataclass(frozen=True)
class Groups:
    """The weight as a matrix whose rows are cut into groups; a row's last group may be shorter.

    Attributes:
        shape: Shape of the weight.
        axis: The output-channel axis.
        group: What shares a scale.
    """

    shape: tuple[int, ...]
    axis: int
    group: Group

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Rows, and weights a row: one row for the whole tensor, else one for each channel."""
        n_rows, n_columns = matrix_shape(self.shape, self.axis)
        return (1, n_rows * n_columns) if self.group == "tensor" else (n_rows, n_columns)

    @property
    def size(self) -> int:
        """Weights in a group that is not cut short."""
        return min(self.group, self.matrix_shape[1]) if isinstance(self.group, int) else self.matrix_shape[1]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Weights in each group of a row, `(n_groups,)`."""
        n = self.matrix_shape[1]
        return np.diff(np.append(self._starts, n))

    @property
    def n_groups(self) -> int:
        """Number of groups in all rows together."""
        return self.matrix_shape[0] * len(self._starts)

    @property
    def _starts(self) -> NDArray[np.int64]:
        return np.arange(0, self.matrix_shape[1], max(self.size, 1))

    def rows(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Returns the weight as `matrix_shape`."""
        return as_matrix(weight, self.axis).reshape(self.matrix_shape)

    def weight(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Undoes `rows`."""
        return from_matrix(rows, self.shape, self.axis)

    def reduce(self, ufunc: np.ufunc, rows: NDArray[Any]) -> NDArray[Any]:
        """Reduces each group: `(n_rows, n_weights)` to `(n_rows, n_groups)`."""
        if not rows.size:
            return np.zeros((rows.shape[0], len(self._starts)), rows.dtype)
        return np.asarray(ufunc.reduceat(rows, self._starts, axis=1))

    def expand(self, values: NDArray[Any]) -> NDArray[Any]:
        """Repeats each group's value: any shape of `n_groups` numbers to `(n_rows, n_weights)`."""
        return np.repeat(values.reshape(self.matrix_shape[0], -1), self.counts, axis=1)


@dataclass(frozen=True, eq=False)
class GridWeight:
    """A weight as integers with a scale, and perhaps a zero point, for each group.

    Attributes:
        groups: The groups.
        integers: `(n_rows, n_weights)`; in `[-2^(bits-1), 2^(bits-1))`, or in `[0, 2^bits)` with zero points.
        scale: `(n_groups,)`.
        zero: `(n_groups,)`, unsigned; None without zero points.
        bits: Bits of an integer.
    """

    groups: Groups
    integers: NDArray[np.int32]
    scale: Weight
    zero: NDArray[np.int32] | None
    bits: int


def stored_scales(scales: Weight, dtype: str, name: str) -> Weight:
    """Rounds scales up to the stored dtype, so that no weight is clipped by the rounding; 0 becomes 1.

    Raises:
        StageError: A scale is too large for the dtype.
    """
    scales = np.where(scales > 0, scales, np.float32(1))
    with np.errstate(over="ignore"):
        stored = scales.astype(dtype)
        up = np.nextafter(stored, np.array(np.inf, dtype))
    stored = np.where(stored.astype(np.float32) < scales, up, stored)
    if not np.isfinite(stored).all():
        raise StageError(
            f"weight_format={name}: a scale of {scales.max():.3g} does not fit {dtype}; use scale_dtype=float32"
        )
    return stored.astype(np.float32)


def stored_numbers(values: NDArray[np.float32], dtype: str) -> bytes:
    """Returns numbers that are exact in `dtype`, little-endian."""
    return values.astype(np.dtype(dtype).newbyteorder("<")).tobytes()
