"""How image files, masks and downscaled images become arrays of one size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.crops import opened_image
from spaces.errors import ConfigError, InputError

if TYPE_CHECKING:
    from PIL import Image

Channels = Literal["rgb", "grey"]
_MODES: dict[str, str] = {"rgb": "RGB", "grey": "L"}


@dataclass(frozen=True)
class Frame:
    """The size that images, and what belongs to them, are brought to.

    Attributes:
        resize: Length to which the shorter side is resized, or `(height, width)`, pixels; None keeps the size.
        crop: Side of the square, or `(height, width)`, that is cut out of the centre; None takes the whole image.
    """

    resize: int | tuple[int, int] | None = None
    crop: int | tuple[int, int] | None = None

    @classmethod
    def of(cls, resize: int | Sequence[int] | None, crop: int | Sequence[int] | None) -> "Frame":
        """Returns the frame of a config's values. Raises ConfigError if one is no size."""
        return cls(_size(resize, "resize"), _size(crop, "crop"))

    def cut(self, image: "Image.Image", resampling: int, path: Path) -> "Image.Image":
        """Returns an image at this size.

        Raises:
            InputError: The image is smaller than the crop.
        """
        from PIL import Image

        image = self._resized(image, Image.Resampling(resampling))
        if self.crop is None:
            return image
        height, width = (self.crop, self.crop) if isinstance(self.crop, int) else self.crop
        left, top = (image.width - width) // 2, (image.height - height) // 2
        if left < 0 or top < 0:
            raise InputError(
                f"{path}: {image.height} x {image.width} pixels are too few to cut out {height} x {width} (task.data.resize "
                "enlarges images)"
            )
        return image.crop((left, top, left + width, top + height))

    def _resized(self, image: "Image.Image", resampling: "Image.Resampling") -> "Image.Image":
        if self.resize is None:
            return image
        if isinstance(self.resize, int):
            short = min(image.size)
            size = [max(self.resize, round(self.resize * side / short)) for side in image.size]
        else:
            size = [*self.resize[::-1]]
        return image if [*image.size] == size else image.resize((size[0], size[1]), resampling)


@dataclass(frozen=True)
class Photo:
    """Decodes an image.

    Attributes:
        frame: Its size.
        channels: `rgb` or `grey`.
    """

    frame: Frame
    channels: Channels = "rgb"

    def preparation(self) -> str:
        """Returns how an image is resized and cut, as text."""
        sizes = (("resized", self.frame.resize), ("cut", self.frame.crop))
        return ", ".join([self.channels, *(f"{name} to {size}" for name, size in sizes if size)])

    def __call__(self, path: Path) -> NDArray[np.uint8]:
        """Returns `(height, width, channels)` uint8, bilinear where it is resized. Raises InputError if it cannot be decoded."""
        from PIL import Image

        with opened_image(path) as image:
            pixels = self.frame.cut(image.convert(_MODES[self.channels]), Image.Resampling.BILINEAR, path)
            return _with_channels(np.asarray(pixels))


@dataclass(frozen=True)
class Mask:
    """Decodes a mask: the values of a grey image, or the entries' numbers of one with a palette.

    Attributes:
        frame: Its size; where it is resized, the nearest value is taken.
        values: The value of each class, in their order; None if values are the classes' numbers.
        ignore: Value that is kept as it is.
    """

    frame: Frame
    values: tuple[int, ...] | None = None
    ignore: int | None = None

    def __call__(self, path: Path) -> NDArray[Any]:
        """Returns `(height, width)` uint8, or int32 of deeper images.

        Raises:
            InputError: The mask cannot be decoded, is coloured, or has a value that is none of `values`.
        """
        from PIL import Image

        with opened_image(path) as image:
            if image.mode == "1":
                image = image.convert("L").point(lambda value: value // 255)
            if image.mode not in ("L", "P") and not image.mode.startswith("I"):
                raise InputError(
                    f"{path}: a mask is a grey image or has a palette, but this one is {image.mode}"
                )
            cut = np.asarray(self.frame.cut(image, Image.Resampling.NEAREST, path))
        raw = cut if cut.dtype == np.uint8 else cut.astype(np.int32)
        return raw if self.values is None else self._classes(raw, path)

    def _classes(self, raw: NDArray[Any], path: Path) -> NDArray[Any]:
        assert self.values is not None
        classes = np.full(raw.shape, -1, np.int32)
        for number, value in enumerate(self.values):
            classes[raw == value] = number
        if self.ignore is not None and self.ignore not in self.values:
            classes[raw == self.ignore] = self.ignore
        if (classes < 0).any():
            row, column = np.argwhere(classes < 0)[0].tolist()
            raise InputError(
                f"{path}: the mask has {int(raw[row, column])} at row {row}, column {column}, but task.data.mask_values is "
                f"{list(self.values)}"
            )
        return classes


@dataclass(frozen=True)
class Sharp:
    """Decodes the centre of an image, to be restored from `Small`.

    Attributes:
        size: Side of the square, pixels.
        channels: `rgb` or `grey`.
    """

    size: int
    channels: Channels = "rgb"

    def __call__(self, path: Path) -> NDArray[np.uint8]:
        """Returns `(size, size, channels)` uint8. Raises InputError if the image cannot be decoded or is smaller."""
        with opened_image(path) as image:
            return _with_channels(np.asarray(self.cut(image, path)))

    def cut(self, image: "Image.Image", path: Path) -> "Image.Image":
        """Returns the centre of an image."""
        if min(image.size) < self.size:
            raise InputError(
                f"{path}: {image.height} x {image.width} pixels are fewer than task.data.size={self.size}"
            )
        return Frame(crop=self.size).cut(image.convert(_MODES[self.channels]), 0, path)


@dataclass(frozen=True)
class Small:
    """Decodes the centre of an image and downscales it.

    Attributes:
        sharp: The centre.
        factor: By which its sides are divided.
    """

    sharp: Sharp
    factor: int

    def __call__(self, path: Path) -> NDArray[np.uint8]:
        """Returns `(size / factor, size / factor, channels)` uint8, bicubic. Raises InputError as `Sharp` does."""
        with opened_image(path) as image:
            return _with_channels(downscaled(self.sharp.cut(image, path), self.factor))


def downscaled(image: "Image.Image", factor: int) -> NDArray[np.uint8]:
    """Returns an image downscaled by Pillow's bicubic filter, `(height / factor, width / factor, ...)`."""
    from PIL import Image

    size = (image.width // factor, image.height // factor)
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


def _with_channels(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _size(value: int | Sequence[int] | None, name: str) -> int | tuple[int, int] | None:
    if value is None:
        return None
    sides = (value,) if isinstance(value, int) else tuple(value)
    if len(sides) not in (1, 2) or not all(type(side) is int and side > 0 for side in sides):
        raise ConfigError(f"task.data.{name} must be a number of pixels or [height, width], not {value!r}")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])
