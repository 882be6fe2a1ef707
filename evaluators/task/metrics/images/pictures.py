"""Outputs and labels as pictures that are compared pixel by pixel."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spaces.stages.pixels import Layout

Picture = NDArray[np.float64]

_CHUNK_BYTES = 32 * 2**20  # of pictures that are compared at once
# Luma of ITU-R BT.601 for red, green and blue, in levels of 255: black is 16, white 235.
_LUMA, _BLACK = np.array([65.481, 128.553, 24.966]), 16.0


@dataclass(frozen=True)
class Pictures:
    """Turns outputs and labels into pictures in [0, 1].

    Attributes:
        layout: `NCHW` or `NHWC`.
        white: Their brightest value; 0 is black. Outputs beyond these count as black or white.
        border: Pixels at each side that do not count.
    """

    layout: Layout = "NCHW"
    white: float = 1.0
    border: int = 0

    def pairs(
        self, outputs: NDArray[np.generic], labels: NDArray[np.generic]
    ) -> Iterator[tuple[Picture, Picture]]:
        """Yields pictures of outputs and of labels, `(b, height, width, channels)`, a few examples at a time."""
        step = max(1, _CHUNK_BYTES // max(1, 8 * labels[0].size))
        for start in range(0, len(labels), step):
            rows = slice(start, start + step)
            yield self(outputs[rows]), self(labels[rows])

    def __call__(self, array: NDArray[np.generic]) -> Picture:
        """Returns the pictures of a batch."""
        last = np.moveaxis(array, 1, -1) if self.layout == "NCHW" else array
        inner = slice(self.border, -self.border or None)
        return np.clip(last[:, inner, inner].astype(np.float64) / self.white, 0.0, 1.0)


def luma(pictures: Picture) -> Picture:
    """Returns Y of BT.601, `(b, height, width, 1)`, in [0, 1]; pictures of one channel as they are."""
    if pictures.shape[-1] != 3:
        return pictures
    return np.asarray((pictures @ _LUMA[:, None] + _BLACK) / 255)
