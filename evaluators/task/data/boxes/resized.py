"""Brings images of any size to that of the network's input, and their boxes with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.crops import opened_image
from spaces.errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image

Resize = Literal["letterbox", "corner", "stretch"]
RESIZES = ("letterbox", "corner", "stretch")
CHANNELS = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class Resized:
    """How an image becomes an input (bilinear).

    Attributes:
        size: Height and width of the input, pixels.
        resize: `letterbox` keeps the ratio of the sides and centres the image; `corner` likewise, with the image in the upper left
            corner; `stretch` gives both sides their lengths.
        fill: Grey level of what the image does not cover, 0 to 255.
        channels: 3 for red, green, blue; 1 for grey.
    """

    size: tuple[int, int]
    resize: Resize = "letterbox"
    fill: int = 114
    channels: int = 3

    def __post_init__(self) -> None:
        """Checks the settings. Raises ConfigError."""
        sides = tuple(self.size) if isinstance(self.size, Sequence) else ()
        if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
            raise ConfigError(f"task.data.size must be [height, width] in pixels, not {self.size!r}")
        if self.resize not in RESIZES:
            raise ConfigError(f"task.data.resize must be one of {', '.join(RESIZES)}, not {self.resize!r}")
        if not 0 <= self.fill <= 255:
            raise ConfigError(f"task.data.fill must lie in 0..255, not {self.fill!r}")
        if self.channels not in CHANNELS:
            raise ConfigError(f"task.data.channels must be 1 or 3, not {self.channels!r}")
        object.__setattr__(self, "size", sides)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an input: height, width, channels."""
        return (*self.size, self.channels)

    def __call__(self, path: Path) -> NDArray[np.uint8]:
        """Returns the input, `(height, width, channels)` uint8. Raises InputError if the file cannot be decoded."""
        with opened_image(path) as image:
            return np.asarray(self._placed(image.convert(CHANNELS[self.channels]))).reshape(self.shape)

    def moved(self, boxes: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
        """Returns corners `(m, 4)` in pixels of the input.

        Args:
            boxes: Corners in pixels of the image.
            width: Width of the image, pixels.
            height: Its height.
        """
        (new_width, new_height), (left, top) = self._place(width, height)
        scale = np.array([new_width / width, new_height / height] * 2)
        return np.asarray(boxes * scale + np.array([left, top] * 2))

    def _place(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Returns width and height of the resized image, and where its upper left corner is, pixels."""
        rows, columns = self.size
        if self.resize == "stretch":
            return (columns, rows), (0, 0)
        scale = min(columns / width, rows / height)
        new = max(1, min(columns, round(width * scale))), max(1, min(rows, round(height * scale)))
        return new, (0, 0) if self.resize == "corner" else ((columns - new[0]) // 2, (rows - new[1]) // 2)

    def _placed(self, image: "Image.Image") -> "Image.Image":
        from PIL import Image

        size, corner = self._place(*image.size)
        if image.size != size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        if size == (self.size[1], self.size[0]):
            return image
        background = self.fill if self.channels == 1 else (self.fill,) * 3
        canvas = Image.new(image.mode, (self.size[1], self.size[0]), background)
        canvas.paste(image, corner)
        return canvas
