"""Images of shapes with masks, made by code, so that nothing has to be downloaded."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.data import Data, Examples
from evaluators.task.data.splits import Normalise
from spaces.errors import ConfigError
from spaces.stages.array_split import ArraySplit

IGNORE = 255
_NOISE = 12.0  # standard deviation of the pixels' noise, grey levels
_CONTRAST = (40, 90)  # of shapes, grey levels


class Shapes(Data):
    """Grey images of discs (class 1), squares (2) and crosses (3), brighter or darker than their background (0), under noise.

    The outline of each shape is marked with 255, as in PASCAL VOC: it is not to be judged.

    Args:
        n: Number of images.
        size: Their side, pixels; at least 16.
        seed: Seed of the drawing.
    """

    def __init__(self, n: int = 600, size: int = 24, seed: int = 0) -> None:
        if size < 16 or n < 1:
            raise ConfigError(f"task.data: size must be at least 16 and n at least 1, not size={size}, n={n}")
        self._n, self._size, self._seed = n, size, seed

    def read(self, root: Path | None) -> Examples:
        """Returns images `(n, 1, size, size)` and masks `(n, size, size)` uint8."""
        rng = np.random.default_rng(self._seed)
        drawn = [_drawing(self._size, rng) for _ in range(self._n)]
        images = np.stack([image for image, _ in drawn])[..., None]
        split = ArraySplit(images, np.stack([mask for _, mask in drawn]), Normalise(mean=(0.5,), std=(0.25,)))
        return Examples(split, folder="the shapes")


def _drawing(size: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Returns an image and its mask, `(size, size)` each."""
    image = np.full((size, size), rng.uniform(90, 165))
    mask = np.zeros((size, size), np.uint8)
    y, x = np.mgrid[:size, :size]
    for _ in range(rng.integers(1, 4)):
        kind, radius = int(rng.integers(1, 4)), rng.uniform(size / 9, size / 5)
        cy, cx = rng.uniform(radius, size - radius, 2)
        distance = _distance(kind, np.abs(y - cy), np.abs(x - cx), radius)
        mask[distance <= 1] = IGNORE
        mask[distance <= 0] = kind
        image[distance <= 0.5] = image.mean() + rng.choice((-1, 1)) * rng.uniform(*_CONTRAST)
    noisy = image + rng.normal(0, _NOISE, image.shape)
    return np.clip(noisy.round(), 0, 255).astype(np.uint8), mask


def _distance(
    kind: int, dy: NDArray[np.float64], dx: NDArray[np.float64], radius: float
) -> NDArray[np.float64]:
    """Returns by how much positions lie outside a shape, pixels; 0 or less within."""
    if kind == 1:
        return np.asarray(np.hypot(dy, dx) - radius)
    if kind == 2:
        return np.asarray(np.maximum(dy, dx) - 0.85 * radius)
    bar = radius / 3
    return np.asarray(np.minimum(np.maximum(dy - radius, dx - bar), np.maximum(dx - radius, dy - bar)))
