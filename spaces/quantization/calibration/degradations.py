"""The seven image degradations of QRID ("Quantization Robustness to Input Degradations").

Two severities of noise, blur and JPEG compression, and low contrast, with the published ranges; all random
numbers come from the caller's generator. They map one image `(height, width, channels)`, float32 from 0 to
255, to uint8.
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
        name: The name in columns and messages.
        damage: Draws the strength, and returns the degraded image, of the same shape and scale, before
            rounding.
    """

    name: str
    damage: Callable[[Image, Random], NDArray[np.generic]]

    def __call__(self, image: Image, random: Random) -> NDArray[np.uint8]:
        """Returns the degraded image as uint8, same shape.

        Args:
            image: `(height, width, channels)`, 0 to 255, 1 or 3 channels.
            random: Generator of the strength and of noise.
        """
        damaged: NDArray[np.uint8] = np.clip(np.rint(self.damage(image, random)), 0, 255).astype(np.uint8)
        return damaged


def _noise(low: float, high: float) -> Callable[[Image, Random], NDArray[np.generic]]:
    """Returns additive Gaussian noise with a variance drawn from `[low, high]`."""

    def damage(image: Image, random: Random) -> NDArray[np.generic]:
        return image + random.normal(0.0, np.sqrt(random.uniform(low, high)), image.shape)

    return damage


def _blur(*kernels: int) -> Callable[[Image, Random], NDArray[np.generic]]:
    """Returns a Gaussian blur with a kernel size drawn from `kernels` (odd, in pixels)."""

    def damage(image: Image, random: Random) -> NDArray[np.generic]:
        from scipy.ndimage import correlate1d

        weights = gaussian(kernels[int(random.integers(len(kernels)))], min(image.shape[:2]))
        rows = correlate1d(image, weights, axis=0, mode="mirror")
        return np.asarray(correlate1d(rows, weights, axis=1, mode="mirror"))

    return damage


def gaussian(kernel: int, side: int) -> NDArray[np.float64]:
    """Returns the weights `(size,)` of a Gaussian blur, with sum 1; `size` is odd and at least 3.

    The standard deviation is that of OpenCV: `0.3 ((size - 1) / 2 - 1) + 0.8`. On images so small that the
    largest kernel would cover more than half of a side, sizes and deviations of all kernels are reduced in
    proportion.

    Args:
        kernel: Kernel size for a large image, odd, in pixels.
        side: The image's shorter side, in pixels.
    """
    scale = min(1.0, side / (2 * LARGEST_KERNEL))
    reach = kernel // 2
    deviation = scale * (0.3 * (reach - 1) + 0.8)
    offsets = np.arange(-max(1, round(scale * reach)), max(1, round(scale * reach)) + 1)
    weights = np.exp(-(offsets**2) / (2 * deviation**2))
    return np.asarray(weights / weights.sum(), np.float64)


def _contrast(low: float, high: float) -> Callable[[Image, Random], NDArray[np.generic]]:
    """Returns a scaling of all pixels by `1 + c`, `c` in `[low, high]`; as in QRID's code, it darkens."""

    def damage(image: Image, random: Random) -> NDArray[np.generic]:
        return image * (1 + random.uniform(low, high))

    return damage


def _jpeg(low: int, high: int) -> Callable[[Image, Random], NDArray[np.generic]]:
    """Returns JPEG compression and decompression with a quality drawn from `[low, high]`."""

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
