"""Rows of handwritten digits to be read from left to right, put together by code from scikit-learn's: for examples and tests."""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.data import Data, Examples
from spaces.errors import ConfigError
from spaces.stages.array_split import ArraySplit
from spaces.task_losses import IGNORED

SIDE, GAP = 8, 10  # pixels of a digit; the class of a column between digits
POOLS = 20


class DigitRowsData(Data):
    """Images `(1, 8, width)` in [0, 1] with digits side by side, and noise.

    The digits are divided into 20 pools, each row's being of one; pools are the groups, so that no digit is in two splits.

    Args:
        labels: `transcripts`: the digits as text; `columns`: the class of every `stride` columns, `(width / stride,)`: the digit, 10
            between digits, -1 at a digit's edge.
        rows: Number of rows of each pool.
        digits: Most digits in a row.
        width: Width of a row, pixels.
        stride: Columns that have one class.
        noise: Deviation of the noise.
        seed: Seed of the rows.
    """

    def __init__(
        self,
        labels: Literal["transcripts", "columns"] = "transcripts",
        rows: int = 75,
        digits: int = 5,
        width: int = 64,
        stride: int = 2,
        noise: float = 0.15,
        seed: int = 0,
    ) -> None:
        if digits < 1 or rows < 1 or width < (SIDE + 1) * digits or stride < 1 or width % stride:
            raise ConfigError(
                f"task.data: {digits} digits of {SIDE} pixels do not fit into width={width}, or stride={stride} does not divide it"
            )
        self._labels, self._rows, self._digits = labels, rows, digits
        self._width, self._stride, self._noise, self._seed = width, stride, noise, seed

    def read(self, root: Path | None) -> Examples:
        """Returns the rows; `root` has no effect."""
        from sklearn import datasets

        images, classes = datasets.load_digits(return_X_y=True)
        random = np.random.default_rng(self._seed)
        pools = np.array_split(random.permutation(len(classes)), POOLS)
        groups = np.repeat(np.arange(POOLS), self._rows)
        made = [self._row(random, images, classes, pools[pool]) for pool in groups]
        inputs = np.stack([image for image, _, _ in made])[:, None]
        noisy = (inputs + self._noise * random.standard_normal(inputs.shape)).astype(np.float32)
        texts = np.array([text for _, text, _ in made])
        labels = texts if self._labels == "transcripts" else np.stack([columns for _, _, columns in made])
        return Examples(ArraySplit(noisy, labels), groups, folder="the rows of digits")

    def _row(
        self,
        random: np.random.Generator,
        images: NDArray[np.float64],
        classes: NDArray[np.int64],
        pool: NDArray[np.int64],
    ) -> tuple[NDArray[np.float64], str, NDArray[np.int64]]:
        """Returns a row `(8, width)`, its text, and the classes of its columns."""
        chosen = random.choice(pool, random.integers(1, self._digits + 1))
        free = self._width - SIDE * len(chosen)
        gaps = np.diff(np.sort(random.integers(0, free + 1, len(chosen))), prepend=0)
        row, columns = np.zeros((SIDE, self._width)), np.full(self._width, GAP)
        start = 0
        for digit, gap in zip(chosen, gaps, strict=True):
            start += int(gap)
            row[:, start : start + SIDE] = images[digit].reshape(SIDE, SIDE) / 16
            columns[start : start + SIDE] = classes[digit]
            columns[[start, start + SIDE - 1]] = IGNORED
            start += SIDE
        middles = columns[self._stride // 2 :: self._stride]
        return row, "".join(str(classes[digit]) for digit in chosen), middles
