"""Decodes images as ImageNet networks expect them, once, into a file that all processes share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.stored_rows import Store, store_rows
from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import StoredRows

if TYPE_CHECKING:
    from PIL import Image

# Formats whose decoders work in this process; Pillow hands e.g. EPS to another program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")

INTERPOLATIONS = {
    "bilinear": "BILINEAR", "bicubic": "BICUBIC", "nearest": "NEAREST", "area": "BOX", "lanczos": "LANCZOS"
}  # fmt: skip
"""Ways to resize, and Pillow's names of them."""


@contextmanager
def opened_image(path: Path) -> "Iterator[Image.Image]":
    """Opens an image while it is decoded.

    Raises:
        InputError: The file is missing, or cannot be decoded as an image.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such image") from error
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise InputError(f"{path} cannot be decoded as an image: {error}") from error


@dataclass(frozen=True)
class Crop:
    """How an image becomes an array: the shorter side is resized, then the centre is cut out.

    Attributes:
        resize: Length of the shorter side, pixels.
        size: Side of the square that is cut out, pixels.
        interpolation: How pixels are resized, one of `INTERPOLATIONS`; all but `nearest` average when they make an image smaller.
    """

    resize: int = 256
    size: int = 224
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        """Checks the sizes. Raises ConfigError."""
        if not 0 < self.size <= self.resize:
            raise ConfigError(
                f"task.crop must lie in 1..task.resize, but crop={self.size}, resize={self.resize}"
            )
        if self.interpolation not in INTERPOLATIONS:
            names = ", ".join(INTERPOLATIONS)
            raise ConfigError(f"task.interpolation must be one of {names}, not {self.interpolation!r}")

    def __repr__(self) -> str:
        """The settings, part of the stored file's name; the default interpolation has none, as in files of older versions."""
        more = "" if self.interpolation == "bilinear" else f", interpolation={self.interpolation!r}"
        return f"Crop(resize={self.resize}, size={self.size}{more})"

    def __call__(self, path: Path) -> NDArray[np.uint8]:
        """Returns the crop, `(size, size, 3)` uint8.

        Raises:
            InputError: The file is missing, or cannot be decoded as an image.
        """
        with opened_image(path) as image:
            return np.asarray(self._cut(image.convert("RGB")))

    def _cut(self, image: "Image.Image") -> "Image.Image":
        from PIL import Image

        width, height = image.size
        short = min(width, height)
        if short != self.resize:
            width, height = (max(self.resize, self.resize * side // short) for side in (width, height))
            image = image.resize((width, height), Image.Resampling[INTERPOLATIONS[self.interpolation]])
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        return image.crop((left, top, left + self.size, top + self.size))


def store_crops(files: Sequence[Path], crop: Crop, cache_dir: Path) -> StoredRows:
    """Decodes images into one `.npy` file in `cache_dir`, unless the file exists: see `store_rows`.

    50,000 crops of 224 x 224 take 7.5 GB on disk, and no memory.

    Returns:
        Rows `(size, size, 3)` uint8 in the order of `files`.
    """
    return store_rows(files, crop, Store(cache_dir, "crops", "image"))
