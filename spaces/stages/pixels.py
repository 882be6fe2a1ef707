"""The linear map between model inputs and pixels, so that examples can be changed as images.

A split may declare the map in an attribute `pixels: Pixels | None`, which is not part of the `Split`
protocol, because most data are not images. `pixels_of` reads the attribute, and estimates the map where it is
absent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spaces.stages.artifact import Split

Layout = Literal["NCHW", "NHWC"]
CHANNELS = (1, 3)  # grey, and red, green, blue
RANGE_EXAMPLES = 1000  # number of examples from which black and white are estimated


@dataclass(frozen=True)
class Pixels:
    """A linear map between model inputs and images of 0 to 255.

    Attributes:
        layout: Whether channels come first or last in an input.
        black: The input value of a pixel of 0, one per channel, or one for all.
        white: The input value of a pixel of 255, likewise.
        assumed: Whether `black` and `white` are estimated from the extremes of some inputs, because the split
            declares none.
    """

    layout: Layout
    black: tuple[float, ...]
    white: tuple[float, ...]
    assumed: bool = False

    def images(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns `(n, height, width, channels)` float32, 0 to 255, for inputs `(n, *input.shape)`."""
        last = np.moveaxis(inputs, 1, -1) if self.layout == "NCHW" else inputs
        black, span = self._span()
        return np.clip((last - black) * (np.float32(255) / span), 0, 255)

    def inputs(self, images: NDArray[np.generic]) -> NDArray[np.float32]:
        """Returns inputs `(n, *input.shape)` float32 for images `(n, height, width, channels)` of 0 to 255."""
        black, span = self._span()
        last = images.astype(np.float32) * (span / np.float32(255)) + black
        return np.ascontiguousarray(np.moveaxis(last, -1, 1) if self.layout == "NCHW" else last)

    def _span(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        black = np.asarray(self.black, np.float32)
        return black, np.asarray(self.white, np.float32) - black


def no_images(shape: tuple[int, ...]) -> str:
    """Returns the reason why inputs of this shape (see `InputSpec.float_shape`) are not images; empty if they can be."""
    if shape == ():
        return "the network has several inputs, or one that takes no floating-point numbers"
    if layout_of(shape) is not None:
        return ""
    return f"inputs of shape {shape} are no images, which have 3 axes and 1 or 3 channels"


def layout_of(shape: tuple[int, ...]) -> Layout | None:
    """Returns the layout of an image of this shape; None if the shape is not that of an image."""
    if len(shape) != 3:
        return None
    if shape[0] in CHANNELS:
        return "NCHW"
    return "NHWC" if shape[-1] in CHANNELS else None


def pixels_of(split: Split) -> Pixels | None:
    """Returns the map between a split's inputs and pixels; None if the inputs are not images.

    If the split declares none, black is the smallest and white the largest input of its first
    `RANGE_EXAMPLES` examples.
    """
    stated: Pixels | None = getattr(split, "pixels", None)
    if stated is not None:
        return stated
    layout, low, high = None, np.inf, -np.inf
    for inputs, _ in split.batches(64, RANGE_EXAMPLES):
        if isinstance(inputs, Mapping):  # a split of images by name states no pixels
            return None
        layout = layout_of(inputs.shape[1:])
        if layout is None:
            return None
        low, high = min(low, float(inputs.min())), max(high, float(inputs.max()))
    if layout is None or not np.isfinite([low, high]).all():
        return None
    return Pixels(layout, (low,), (high if high > low else low + 1.0,), assumed=True)
