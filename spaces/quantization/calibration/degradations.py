"""The seven degradations of QRID ("Quantization Robustness to Input Degradations"): what cameras, weather and codecs do.

Two severities of noise, blur and JPEG compression, and low contrast, with the published ranges; every draw comes from a
generator of the caller's. They act on one image `(height, width, channels)`, float32 of 0 to 255, and yield bytes, as a
camera would.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Random = np.random.Generator

LARGEST_KERNEL = 11


@dataclass(frozen=True)
class Degradation:
    """One row of the table of degradations.

    Attributes:
        name: As in columns and messages.
        damage: Draws the strength, and returns the damaged image, of the same shape, on the scale of 0 to 255.
    """

    name: str
    damage: Callable[[Image, Random], NDArray[np.generic]]

    def __call__(self, image: Image, random: Random) -> NDArray[np.uint8]:
        """Returns the damaged image as bytes.

        Args:
            image: `(height, width, channels)`, 0 to 255, 1 or 3 channels.
            random: What the strength, and noise, is drawn from.
        """
        damaged: NDArray[np.uint8] = np.clip(np.rint(self.damage(image, random)), 0, 255).astype(np.uint8)
        return damaged


def _noise(low: float, high: float) -> Callable[[Image, Random], NDArray[np.generic]]:
    """Normal noise on every channel of every pixel, its variance between the two."""

    def damage(image: Image, random: Random) -> NDArray[np.generic]:
        return image + random.normal(0.0, np.sqrt(random.uniform(low, high)), image.shape)

    return damage


def _blur(*kernels: int) -> Callable[[Image, Random], NDArray[np.generic]]:
    """A Gaussian blur with one of these odd kernel sizes, in pixels."""

    def damage(image: Image, random: Random) -> NDArray[np.generic]:
        from scipy.ndimage import correlate1d

        weights = gaussian(kernels[int(random.integers(len(kernels)))], min(image.shape[:2]))
        rows = correlate1d(image, weights, axis=0, mode="mirror")
        return np.asarray(correlate1d(rows, weights, axis=1, mode="mirror"))

    return damage


def gaussian(kernel: int, side: int) -> NDArray[np.float64]:
    """Returns the weights `(size,)` of a Gaussian blur, of sum 1; `size` is odd and at least 3.

    The deviation follows from the size as in OpenCV: `0.3 ((size - 1) / 2 - 1) + 0.8`. On images so small that the largest
    kernel would cover more than half of a side, size and deviation of every kernel shrink in proportion.

    Args:
        kernel: Size on an image that is large enough, odd, in pixels.
        side: The image's shorter side, in pixels.
    """
    scale = min(1.0, side / (2 * LARGEST_KERNEL))
    reach = kernel // 2
    deviation = scale * (0.3 * (reach - 1) + 0.8)
    offsets = np.arange(-max(1, round(scale * reach)), max(1, round(scale * reach)) + 1)
    weights = np.exp(-(offsets**2) / (2 * deviation**2))
    return np.asarray(weights / weights.sum(), np.float64)


def _contrast(low: float, high: float) -> Callable[[Image, Random], NDArray[np.generic]]:
    """All pixels times `1 + c`, `c` between the two; as in the published code, the image gets darker, too."""

    def damage(image: Image, random: Random) -> NDArray[np.generic]:
        return image * (1 + random.uniform(low, high))

    return damage


def _jpeg(low: int, high: int) -> Callable[[Image, Random], NDArray[np.generic]]:
    """Compression and decompression, with a quality between the two."""

    def damage(image: Image, random: Random) -> NDArray[np.generic]:
        from PIL import Image as Pillow

        grey = image.shape[2] == 1
        whole = np.clip(np.rint(image), 0, 255).astype(np.uint8)
        stored = BytesIO()
        quality = int(random.integers(low, high + 1))
        Pillow.fromarray(whole[..., 0] if grey else whole).save(stored, "JPEG", quality=quality)
        with Pillow.open(stored, formats=["JPEG"]) as decoded:
            return np.asarray(decoded).reshape(image.shape)

    return damage


DEGRADATIONS: Mapping[str, Degradation] = MappingProxyType(
    {
        row.name: row
        for row in (
            Degradation("low_noise", _noise(10, 50)),
            Degradation("medium_noise", _noise(50, 150)),
            Degradation("small_blur", _blur(3, 5)),
            Degradation("large_blur", _blur(7, 9, LARGEST_KERNEL)),
            Degradation("low_contrast", _contrast(-0.6, -0.3)),
            Degradation("moderate_jpeg", _jpeg(50, 75)),
            Degradation("heavy_jpeg", _jpeg(20, 45)),
        )
    }
)
