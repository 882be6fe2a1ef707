"""From a network's outputs to the class of each position of an image."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spaces.stages.pixels import Layout

Upsample = Literal["none", "nearest", "bilinear"]
Size = tuple[int, int]
"""Height and width."""

_CHUNK_BYTES = 64 * 2**20  # of class scores that are brought to the masks' size at once


@dataclass(frozen=True)
class ClassMaps:
    """Turns outputs into class maps.

    Outputs are class scores `(n, C, h, w)`, or `(n, h, w, C)` under `NHWC`, whose largest decides, the first of equal ones; or
    class maps `(n, h, w)`, with or without an axis of size 1, as ArgMax yields them.

    Attributes:
        n_classes: C.
        layout: Axis of the classes.
        threshold: For two classes told apart by one score: it is class 1 where the score lies above the threshold. None: a score
            per class.
        upsample: How outputs that are smaller than masks are brought to their size: `none` refuses them; `bilinear` interpolates
            scores between the centres of positions (class maps are repeated, as by `nearest`).
    """

    n_classes: int
    layout: Layout = "NCHW"
    threshold: float | None = None
    upsample: Upsample = "none"

    def misfit(self, output: NDArray[Any], n: int, size: Size) -> str | None:
        """Returns why an output for `n` examples with masks of this size cannot be judged, as text; None if it can."""
        wanted = 1 if self.threshold is not None else self.n_classes
        form = "(n, C, h, w)" if self.layout == "NCHW" else "(n, h, w, C)"
        if output.ndim not in (3, 4) or len(output) != n:
            return f"the model yields {output.shape} for {n} examples; class scores {form} or class maps (n, h, w) are needed"
        channels, found = self._channels(output), self._size(output)
        if channels != wanted and not self._is_map(output):
            hint = " (task.threshold, for one score of two classes)" if channels == 1 else ""
            return (
                f"the model yields {output.shape} for {n} examples: {channels} scores for each position under "
                f"task.output_layout={self.layout}, but {wanted} are needed{hint}"
            )
        if found == size or (self.upsample != "none" and found[0] <= size[0] and found[1] <= size[1]):
            return None
        how = "; task.upsample=bilinear or nearest enlarges outputs" if found[0] < size[0] else ""
        return f"the model yields positions of {found[0]} x {found[1]}, but masks have {size[0]} x {size[1]}{how}"

    def __call__(self, outputs: NDArray[Any], size: Size | None = None) -> NDArray[np.int64]:
        """Returns the class of each position, `(n, *size)`; without a size at the outputs' own."""
        if self._is_map(outputs):
            maps = outputs.reshape(len(outputs), *self._size(outputs)).astype(np.int64)
            return maps if size in (None, maps.shape[1:]) else _nearest(maps, size)
        scores = outputs[:, None] if outputs.ndim == 3 else outputs
        scores = np.moveaxis(scores, -1, 1) if outputs.ndim == 4 and self.layout == "NHWC" else scores
        if size is not None and size != scores.shape[2:]:
            scores = _bilinear(scores, size) if self.upsample == "bilinear" else _nearest(scores, size)
        if self.threshold is not None:
            return (scores[:, 0] > self.threshold).astype(np.int64)
        return np.asarray(scores.argmax(axis=1), np.int64)

    def with_labels(
        self, outputs: NDArray[Any], labels: NDArray[Any]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yields class maps and labels of a few examples at a time, so that enlarged scores take little memory."""
        height, width = labels.shape[1:]
        step = max(1, _CHUNK_BYTES // (8 * self.n_classes * height * width))
        for start in range(0, len(labels), step):
            rows = slice(start, start + step)
            yield self(outputs[rows], (height, width)), labels[rows]

    def _is_map(self, outputs: NDArray[Any]) -> bool:
        """Whether the outputs are classes already."""
        if outputs.dtype.kind in "iub":
            return self._channels(outputs) == 1
        return outputs.ndim == 3 and self.threshold is None

    def _channels(self, outputs: NDArray[Any]) -> int:
        axis = 1 if self.layout == "NCHW" else -1
        return 1 if outputs.ndim == 3 else int(outputs.shape[axis])

    def _size(self, outputs: NDArray[Any]) -> Size:
        shape = outputs.shape
        rows = shape[1:] if outputs.ndim == 3 else shape[2:] if self.layout == "NCHW" else shape[1:3]
        return (int(rows[0]), int(rows[1]))


def _nearest(array: NDArray[Any], size: Size) -> NDArray[Any]:
    """Returns `(..., h, w)` as `(..., *size)`: every position takes the value of the one that it lies in."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, array.shape[-2:], strict=True))
    return array[..., rows[:, None], columns[None, :]]


def _bilinear(array: NDArray[Any], size: Size) -> NDArray[np.float32]:
    """Returns `(..., h, w)` as `(..., *size)`, interpolated between the centres of positions, constant beyond the outer ones."""
    rows, columns = (_weights(old, new) for old, new in zip(array.shape[-2:], size, strict=True))
    interpolated: NDArray[np.float32] = rows @ array @ columns.T
    return interpolated


def _weights(old: int, new: int) -> NDArray[np.float32]:
    """Returns the matrix `(new, old)` that interpolates a line of values."""
    centres = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    low = np.floor(centres).astype(np.int64)
    high = np.minimum(low + 1, old - 1)
    weights = np.zeros((new, old), np.float32)
    np.add.at(weights, (np.arange(new), low), 1 - (centres - low))
    np.add.at(weights, (np.arange(new), high), centres - low)
    return weights
