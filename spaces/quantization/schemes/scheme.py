"""Schemes: from a real range to a grid of integers.

A grid is defined in the signed domain: `b` bits give the integers `-2^(b-1) .. 2^(b-1) - 1`, and an integer
`q` represents `scale * (q - zero_point)`. The storage type (signed or unsigned) is applied in `integers.py`.
The four schemes are those of the Glow compiler, which Quantune searches over (arXiv 2202.05048, section 3).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spaces.errors import StageError, unknown_name

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """The quantization parameters of one tensor.

    Attributes:
        scale: Step size, float32; `()` for the whole tensor or `(n_channels,)`.
        zero_point: The integer that represents 0, in the signed domain; int64, same shape.
        bits: Bits of the integers.
        axis: The channel axis; None for one scale for the whole tensor.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    bits: int
    axis: int | None = None

    @property
    def stored_bits(self) -> int:
        """Bits of the smallest ONNX integer type that holds the integers: 4, 8 or 16."""
        return next(n for n in (4, 8, 16) if self.bits <= n)

    @cached_property
    def key(self) -> tuple[object, ...]:
        """Hashable key, equal for equal grids."""
        return (self.bits, self.axis, self.scale.tobytes(), self.zero_point.tobytes())

    def dequantized(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns `values` quantized to the grid and dequantized, same shape."""
        shape = [1] * values.ndim
        if self.axis is not None:
            shape[self.axis] = -1
        scale, zero = self.scale.reshape(shape), self.zero_point.reshape(shape)
        low, high = -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        integers = np.clip(np.round(values / scale) + zero, low, high)
        return ((integers - zero) * scale).astype(np.float32)


# (low, high, bits, least scale) -> (scale, zero point), elementwise.
GridRule = Callable[[Floats, Floats, int, Floats], tuple[Floats, Floats]]


@dataclass(frozen=True)
class Scheme:
    """One row of the table of schemes.

    Attributes:
        name: The knob's value.
        activations: Rule for activations.
        weights: Rule for the weights of a whole tensor.
        channel_weights: Rule for per-channel weights: symmetric, because onnxruntime's kernels require the
            same zero point in every channel.
        keeps_activations: Whether ReLU and Clip stay in the graph; with the other schemes the grid of a
            non-negative tensor begins at 0, so that quantization already clips negative values.
    """

    name: str
    activations: GridRule
    weights: GridRule
    channel_weights: GridRule
    keeps_activations: bool


def _asymmetric(low: Floats, high: Floats, bits: int, least: Floats) -> tuple[Floats, Floats]:
    scale = np.maximum((high - low) / (2**bits - 1), least)
    return scale, np.round(-(2 ** (bits - 1)) - low / scale)


def _symmetric(low: Floats, high: Floats, bits: int, least: Floats) -> tuple[Floats, Floats]:
    scale = np.maximum(np.maximum(-low, high) / (2 ** (bits - 1) - 1), least)
    return scale, np.zeros_like(scale)


def _symmetric_uint8(low: Floats, high: Floats, bits: int, least: Floats) -> tuple[Floats, Floats]:
    """Uses the whole range of integers for a tensor without negative values, else is symmetric."""
    positive, signed = _asymmetric(low, high, bits, least), _symmetric(low, high, bits, least)
    return np.where(low >= 0, positive[0], signed[0]), np.where(low >= 0, positive[1], signed[1])


def _symmetric_power2(low: Floats, high: Floats, bits: int, least: Floats) -> tuple[Floats, Floats]:
    """Rounds the scale up to a power of two, so that requantization is a shift."""
    scale, zero = _symmetric(low, high, bits, least)
    mantissa, exponent = np.frexp(scale)  # scale = mantissa * 2^exponent, exactly, with 0.5 <= mantissa < 1
    return np.ldexp(1.0, exponent - (mantissa == 0.5)), zero


SCHEMES: Mapping[str, Scheme] = MappingProxyType(
    {
        row.name: row
        for row in (
            Scheme("asymmetric", _asymmetric, _asymmetric, _symmetric, keeps_activations=False),
            Scheme("symmetric", _symmetric, _symmetric, _symmetric, keeps_activations=True),
            Scheme("symmetric_uint8", _symmetric_uint8, _symmetric, _symmetric, keeps_activations=False),
            Scheme(
                "symmetric_power2",
                _symmetric_power2,
                _symmetric_power2,
                _symmetric_power2,
                keeps_activations=True,
            ),
        )
    }
)


def scheme_of(name: str) -> Scheme:
    """Returns the scheme of that name. Raises StageError if there is none."""
    if name not in SCHEMES:
        raise StageError(unknown_name("scheme", name, SCHEMES, "quantize.scheme"))
    return SCHEMES[name]


def make_grid(
    rule: GridRule,
    low: ArrayLike,
    high: ArrayLike,
    bits: int,
    *,
    reduced: bool = False,
    least_scale: ArrayLike = 0.0,
    axis: int | None = None,
) -> Grid:
    """Applies a rule to real ranges.

    Args:
        rule: The scheme's rule for this kind of tensor.
        low: Smallest real value, `()` or `(n_channels,)`; 0 is always brought into the range.
        high: Largest real value, same shape.
        bits: Bits of the storage type.
        reduced: Whether to use one bit less, so that the 16-bit sums of instruction sets without VNNI do not
            saturate.
        least_scale: Lower bound of the scales.
        axis: Channel axis of per-channel ranges; None for one range.
    """
    low64 = np.minimum(np.asarray(low, np.float64), 0.0)
    high64 = np.maximum(np.asarray(high, np.float64), 0.0)
    empty = np.maximum(-low64, high64) < np.finfo(np.float32).tiny * 2.0**bits
    # Any scale fits an all-zero range; this gives a scale of about 1.
    high64 = np.where(empty, 2.0 ** (bits - 1) - 1, high64)
    least = np.asarray(least_scale, np.float64)
    scale, zero = rule(low64, high64, bits - int(reduced), least)
    return Grid(np.asarray(scale, np.float32), np.asarray(zero, np.int64), bits, axis)
