"""Mosaics of digits: a small detection task made by code, from scikit-learn's digits."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluators.task.boxes.labels import label_rows
from evaluators.task.data.data import Data, Examples
from evaluators.task.data.splits import Normalise
from spaces.errors import ConfigError
from spaces.stages.array_split import ArraySplit, ragged

SPLITS = ("train", "calibration", "validation", "test")
_TRIES = 50  # places that are tried for a digit
_INK = 64  # least grey level that a box has to hold


class DigitMosaics(Data):
    """Grey images with some of scikit-learn's 1,797 handwritten digits at random places and sizes, which do not overlap.

    A box holds a digit's ink; its class is the digit. No digit is used in two splits.

    Args:
        size: Side of an image, pixels.
        train: Images in the train split.
        calibration: Images in the calibration split.
        validation: Images in the validation split.
        test: Images in the test split.
        digits: Least and greatest number of digits of an image.
        sides: Least and greatest side of a digit, pixels; the digits have 8.
        noise: Standard deviation of the noise, grey levels of 255.
        draw_seed: Seed of the mosaics.
    """

    def __init__(
        self,
        size: int = 32,
        train: int = 1000,
        calibration: int = 100,
        validation: int = 300,
        test: int = 300,
        digits: Sequence[int] = (1, 3),
        sides: Sequence[int] = (9, 14),
        noise: float = 12.0,
        draw_seed: int = 0,
    ) -> None:
        for name, pair in (("digits", digits), ("sides", sides)):
            if len(pair) != 2 or not 1 <= pair[0] <= pair[1]:
                raise ConfigError(f"task.data.{name} must be two whole numbers from 1 on, not {list(pair)}")
        if sides[1] > size:
            raise ConfigError(f"task.data.sides={list(sides)} do not fit into task.data.size={size}")
        self._counts = {"train": train, "calibration": calibration, "validation": validation, "test": test}
        for name, count in self._counts.items():
            if count < (0 if name == "train" else 1):
                raise ConfigError(f"task.data.{name} must be a number of images, not {count}")
        self._size, self._digits, self._sides = size, (digits[0], digits[1]), (sides[0], sides[1])
        self._noise, self._seed = noise, draw_seed

    def read(self, root: Path | None) -> Examples:
        """Returns the mosaics, `(n, size, size, 1)` uint8, with their boxes; the splits are fixed."""
        from sklearn.datasets import load_digits

        images, classes = load_digits(return_X_y=True)
        random = np.random.default_rng(self._seed)
        pools = np.array_split(random.permutation(len(classes)), 4)
        mosaics: list[NDArray[np.uint8]] = []
        labels, parts = [], {}
        for name, pool in zip(SPLITS, pools, strict=True):
            parts[name] = np.arange(len(mosaics), len(mosaics) + self._counts[name])
            for _ in parts[name]:
                mosaic, label = self._mosaic(images[pool].reshape(-1, 8, 8), classes[pool], random)
                mosaics.append(mosaic)
                labels.append(label)
        split = ArraySplit(np.stack(mosaics), ragged(labels), Normalise())
        return Examples(split, parts=parts, folder="digit mosaics")

    def _mosaic(
        self, images: NDArray[np.float64], classes: NDArray[np.int64], random: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        canvas = np.zeros((self._size, self._size))
        free = np.ones_like(canvas, bool)
        boxes, found = [], []
        for row in random.integers(len(classes), size=random.integers(self._digits[0], self._digits[1] + 1)):
            side = int(random.integers(self._sides[0], self._sides[1] + 1))
            corner = _free_corner(free, side, random)
            if corner is None:
                continue
            y, x = corner
            tile = _enlarged(images[row], side)
            canvas[y : y + side, x : x + side] = tile
            free[y : y + side, x : x + side] = False
            ys, xs = np.nonzero(tile >= _INK)
            boxes.append([x + xs.min(), y + ys.min(), x + xs.max() + 1, y + ys.max() + 1])
            found.append(classes[row])
        noisy = canvas + random.normal(0, self._noise, canvas.shape)
        return noisy.clip(0, 255).round().astype(np.uint8)[..., None], label_rows(
            np.array(boxes), np.array(found)
        )


def _free_corner(free: NDArray[np.bool_], side: int, random: np.random.Generator) -> tuple[int, int] | None:
    """Returns the upper left corner, y and x, of a free square; None if none is found."""
    for _ in range(_TRIES):
        y, x = random.integers(len(free) - side + 1, size=2).tolist()
        if free[y : y + side, x : x + side].all():
            return y, x
    return None


def _enlarged(digit: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Returns a digit `(8, 8)` of levels 0 to 16 as `(side, side)`, bilinear, of levels 0 to 255."""
    from PIL import Image

    image = Image.fromarray((digit * (255 / 16)).astype(np.uint8))
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), np.float64)
