"""Ternary weights: -g, 0 or g.

MoTE's rule for its experts, after BitNet b1.58 (Ma et al. 2024, arXiv 2402.17764): `g = mean|W|`,
`W_t = g * clip(round(W / g), -1, 1)`. The error of a weight is at most `max(g / 2, |w| - g)`. Weights that are ternary already keep their
values: their g is the magnitude that they have, since the mean, zeros included, would shrink them each time.

Blob: trits, then scales. `base3` stores five trits in a byte (3^5 = 243 values; 1.6 bits a weight), `two_bits` four.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from spaces.errors import InputError
from spaces.quantization.formats.base import Packed, WeightFormat
from spaces.quantization.formats.packing.bit_packing import BlobReader, n_packed_bytes, pack_bits
from spaces.quantization.formats.packing.checks import FLOATS, GROUP, check_finite, one_of
from spaces.quantization.formats.packing.groups import (
    GridWeight,
    Group,
    Groups,
    Weight,
    stored_numbers,
    stored_scales,
)

PACKINGS = ("base3", "two_bits")
_POWERS = 3 ** np.arange(5)


@dataclass(frozen=True)
class Ternary(WeightFormat):
    """The ternary format.

    Attributes:
        group: What shares a scale; `tensor` gives three unique values a tensor.
        packing: `base3` (five trits a byte) or `two_bits` (four trits a byte).
        scale_dtype: `float16` or `float32`.

    Raises:
        ConfigError: An option has no such value.
    """

    name: ClassVar[str] = "ternary"
    knobs: ClassVar[Mapping[str, str]] = MappingProxyType({"group": "group"})
    group: Group = field(default="tensor", metadata=GROUP)
    packing: str = field(default="base3", metadata=one_of(PACKINGS))
    scale_dtype: str = field(default="float16", metadata=one_of(FLOATS))

    def encode(self, weight: Weight, axis: int = 0, importance: Weight | None = None) -> Packed:
        """Quantizes and packs a weight; `importance` is not used."""
        del importance
        check_finite(weight, self.name)
        groups = Groups(weight.shape, axis, self.group)
        rows = groups.rows(weight)
        scale = stored_scales(_magnitudes(groups, np.abs(rows)), self.scale_dtype, self.name)
        trits = np.clip(np.round(rows / groups.expand(scale)), -1, 1) + np.float32(0)  # -0 becomes 0
        blob = self._pack_trits((trits + 1).astype(np.uint8).ravel()) + stored_numbers(
            scale, self.scale_dtype
        )
        return Packed(self, blob, axis, groups.weight(trits * groups.expand(scale)))

    def decode(self, blob: bytes, shape: tuple[int, ...], axis: int = 0) -> Weight:
        """Returns `g * trit`, float32."""
        groups = Groups(shape, axis, self.group)
        trits, scale = self._fields(blob, groups)
        return groups.weight(trits * groups.expand(scale))

    def on_grid(self, packed: Packed) -> GridWeight:
        """Returns the trits, which are integers of two bits."""
        groups = Groups(packed.values.shape, packed.axis, self.group)
        trits, scale = self._fields(packed.blob, groups)
        return GridWeight(groups, trits.astype(np.int32), scale, None, 2)

    def _fields(self, blob: bytes, groups: Groups) -> tuple[Weight, Weight]:
        reader = BlobReader(blob)
        trits = self._unpack_trits(reader, int(np.prod(groups.shape))).reshape(groups.matrix_shape)
        scale = reader.numbers(groups.n_groups, self.scale_dtype)
        reader.end()
        return trits, scale

    def n_bytes(self, shape: tuple[int, ...], axis: int = 0) -> int:
        """Returns trits + scales."""
        n = int(np.prod(shape))
        trits = -(-n // 5) if self.packing == "base3" else n_packed_bytes(n, 2)
        return trits + Groups(shape, axis, self.group).n_groups * np.dtype(self.scale_dtype).itemsize

    def _pack_trits(self, trits: NDArray[np.uint8]) -> bytes:
        if self.packing == "two_bits":
            return pack_bits(trits, 2)
        padded = np.append(trits, np.zeros(-trits.size % 5, np.uint8))
        return (padded.reshape(-1, 5) @ _POWERS).astype(np.uint8).tobytes()

    def _unpack_trits(self, reader: BlobReader, n: int) -> Weight:
        if self.packing == "two_bits":
            trits = reader.integers(n, 2)
        else:
            fives = np.frombuffer(reader.take(-(-n // 5)), np.uint8)
            trits = (fives[:, None] // _POWERS % 3).ravel()[:n].astype(np.uint32)
        if trits.size and trits.max() > 2:
            raise InputError("the packed ternary weight has a trit above 2")
        return trits.astype(np.float32) - 1


def _magnitudes(groups: Groups, sizes: Weight) -> Weight:
    """Returns the mean absolute weight of each group, or the only one besides 0."""
    means = (groups.reduce(np.add, sizes.astype(np.float64)) / groups.counts).astype(np.float32)
    largest = groups.reduce(np.maximum, sizes)
    is_ternary = groups.reduce(np.logical_and, (sizes == 0) | (sizes == groups.expand(largest)))
    return np.where(is_ternary, largest, means)
