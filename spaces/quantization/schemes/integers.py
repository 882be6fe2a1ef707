"""Converts floats to the integers of the quantized file, exactly as onnxruntime's tool does."""

import numpy as np
from numpy.typing import NDArray

from spaces.quantization.schemes.scheme import Grid

INT32 = np.iinfo(np.int32)


def stored_zero_point(grid: Grid, stored: str) -> NDArray[np.int64]:
    """Returns the zero point in the storage type; unsigned types shift all integers by half their range."""
    return np.asarray(grid.zero_point + (2 ** (grid.bits - 1) if stored == "unsigned" else 0))


def stored_bytes(integers: NDArray[np.int64], bits: int, stored: str) -> bytes:
    """Returns integers in ONNX's encoding: little-endian, two 4-bit numbers per byte, the low half first."""
    sign = "u" if stored == "unsigned" else "i"
    if bits != 4:
        return integers.astype(f"<{sign}{bits // 8}").tobytes()
    halves = integers.astype(np.int8).ravel() & 0xF
    if halves.size % 2:
        halves = np.append(halves, np.int8(0))
    return (halves[0::2] | halves[1::2] << 4).astype(np.uint8).tobytes()


def weight_integers(weight: NDArray[np.float32], grid: Grid, stored: str) -> bytes:
    """Quantizes a weight to its grid. Returns the integers in ONNX's encoding."""
    shape = [1] * weight.ndim
    if grid.axis is not None:
        shape[grid.axis] = -1
    zero = stored_zero_point(grid, stored)
    low = 0 if stored == "unsigned" else -(2 ** (grid.bits - 1))
    steps = np.round(weight / grid.scale.reshape(shape))
    steps += zero.astype(np.float32).reshape(shape)
    return stored_bytes(np.clip(steps, low, low + 2**grid.bits - 1, out=steps), grid.stored_bits, stored)


def bias_integers(bias: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.int32]:
    """Quantizes biases, `(n,)`, with the scales of the int32 sums that they are added to, `(n,)`."""
    steps = (bias.astype(np.float64) / scale.astype(np.float64)).round()
    return np.clip(steps, INT32.min, INT32.max).astype(np.int32)
