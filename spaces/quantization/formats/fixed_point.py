"""QFX's fixed point: an integer times a power of two, with at most K set bits in its magnitude where K-hot is asked.

Dotzel et al. 2024, "Trainable Fixed-Point Quantization for Deep Learning Acceleration on FPGAs" (arXiv 2401.17544):
`cast(x, w, f) = overflow(round(x << f), w) >> f` for `w` bits of which `f` are a fraction. K-hot keeps the K most significant set
bits of the magnitude, so that a multiplication becomes K shifts. The position of the binary point is one number a tensor; it
is trained in recovery, and otherwise the largest that overflows no weight.

Blob: integers, then the fraction bits (1 byte, signed). Of K-hot integers only the index among the integers that are possible is
stored: 8 bits with K = 1 take 4, with K = 2 take 6.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from spaces.errors import InputError, StageError
from spaces.quantization.formats.base import Packed, WeightFormat
from spaces.quantization.formats.packing.bit_packing import BlobReader, n_packed_bytes, pack_bits
from spaces.quantization.formats.packing.checks import between, check_finite, one_of
from spaces.quantization.formats.packing.groups import (
    GridWeight,
    Groups,
    Weight,
    as_matrix,
    from_matrix,
    matrix_shape,
)

ROUNDINGS, OVERFLOWS = ("nearest", "truncate"), ("saturate", "wrap")
_FRACTION = 100  # most fraction bits, either way


@dataclass(frozen=True)
class FixedPoint(WeightFormat):
    """The fixed-point format.

    Attributes:
        bits: Bits of an integer, its sign included: 2 to 16.
        fraction_bits: Bits after the binary point, which may be negative; None takes the most that no weight overflows.
        k_hot: Most set bits of a magnitude, 1 to 3; 0 is ordinary fixed point.
        rounding: `nearest` (ties to even) or `truncate` (down).
        overflow: `saturate` or `wrap` (two's complement).

    Raises:
        ConfigError: An option has no such value.
    """

    name: ClassVar[str] = "fixed_point"
    knobs: ClassVar[Mapping[str, str]] = MappingProxyType({"weight_bits": "bits", "set_bits": "k_hot"})
    bits: int = field(default=8, metadata=between(2, 16))
    fraction_bits: int | None = field(default=None, metadata=between(-_FRACTION, _FRACTION))
    k_hot: int = field(default=0, metadata=between(0, 3))
    rounding: str = field(default="nearest", metadata=one_of(ROUNDINGS))
    overflow: str = field(default="saturate", metadata=one_of(OVERFLOWS))

    def encode(self, weight: Weight, axis: int = 0, importance: Weight | None = None) -> Packed:
        """Casts and packs a weight; `importance` is not used."""
        del importance
        check_finite(weight, self.name)
        fraction = self._fraction(weight)
        integers = self.integers(weight, fraction)
        table = self._table
        every = np.arange(table[0], table[-1] + 1)
        codes = np.searchsorted(table, every)[as_matrix(integers, axis) - table[0]]
        blob = pack_bits(codes, self._code_bits) + np.int8(fraction).tobytes()
        return Packed(self, blob, axis, np.ldexp(integers.astype(np.float32), -fraction))

    def decode(self, blob: bytes, shape: tuple[int, ...], axis: int = 0) -> Weight:
        """Returns `q / 2^fraction_bits`, float32."""
        reader, table = BlobReader(blob), self._table
        codes = reader.integers(int(np.prod(shape)), self._code_bits)
        fraction = int(np.frombuffer(reader.take(1), np.int8)[0])
        reader.end()
        if codes.size and codes.max() >= len(table):
            raise InputError(f"the packed weight has a code above {len(table) - 1}")
        integers = table[codes].reshape(matrix_shape(shape, axis)).astype(np.float32)
        return from_matrix(np.ldexp(integers, -fraction), shape, axis)

    def on_grid(self, packed: Packed) -> GridWeight:
        """Returns the integers; the scale is a power of two."""
        groups = Groups(packed.values.shape, packed.axis, "tensor")
        fraction = int(np.frombuffer(packed.blob[-1:], np.int8)[0])
        integers = np.ldexp(groups.rows(packed.values), fraction).astype(np.int32)
        return GridWeight(groups, integers, np.ldexp(np.ones(1, np.float32), -fraction), None, self.bits)

    def n_bytes(self, shape: tuple[int, ...], axis: int = 0) -> int:
        """Returns integers + 1."""
        return n_packed_bytes(int(np.prod(shape)), self._code_bits) + 1

    def integers(self, values: NDArray[np.floating], fraction: int) -> NDArray[np.int64]:
        """Returns the integers of a cast: those of weights, or of activations in an integer simulation.

        Args:
            values: Any shape.
            fraction: Bits after the binary point.
        """
        half = 2 ** (self.bits - 1)
        scaled = np.ldexp(values.astype(np.float64), fraction)
        steps = np.round(scaled) if self.rounding == "nearest" else np.floor(scaled)
        if self.overflow == "saturate":
            integers = np.clip(steps, -half, half - 1).astype(np.int64)
        else:
            integers = (np.mod(steps + half, 2 * half) - half).astype(np.int64)
        return k_hot(np.arange(-half, half), self.k_hot)[integers + half] if self.k_hot else integers

    def _fraction(self, weight: Weight) -> int:
        if self.fraction_bits is not None:
            return self.fraction_bits
        largest = float(np.abs(weight).max(initial=0))
        if not largest:
            return 0
        most = 2 ** (self.bits - 1) - 1
        fraction = int(np.floor(np.log2(most / largest)))
        while np.ldexp(largest, fraction) > most:  # where the logarithm was rounded up
            fraction -= 1
        if fraction < -_FRACTION:
            raise StageError(f"weight_format=fixed_point: a weight of {largest:.3g} is too large")
        return min(fraction, _FRACTION)

    @property
    def _table(self) -> NDArray[np.int64]:
        return _possible(self.bits, self.k_hot)

    @property
    def _code_bits(self) -> int:
        return (len(self._table) - 1).bit_length()


def k_hot(integers: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Keeps the `k` most significant set bits of each magnitude: `p = floor(log2 r)`, `out += 2^p`, `r -= 2^p`, k times."""
    left, kept = np.abs(integers), np.zeros_like(integers)
    for _ in range(k):
        exponent = np.frexp(left.astype(np.float64))[1]
        power = np.where(left > 0, np.left_shift(1, np.maximum(exponent - 1, 0)), 0)
        kept, left = kept + power, left - power
    return np.sign(integers) * kept


@lru_cache(maxsize=64)
def _possible(bits: int, k: int) -> NDArray[np.int64]:
    """Returns the integers that a format can represent, ascending."""
    every = np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1), dtype=np.int64)
    return every if not k else np.unique(k_hot(every, k))
