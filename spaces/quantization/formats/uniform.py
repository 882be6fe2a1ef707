"""Integers on a uniform grid, 2 to 8 and 16 bits, with a scale for the tensor, each channel, or groups of inputs.

An integer `q` of `b` bits represents `scale * (q - zero_point)`. Symmetric: `scale = max|w| / (2^(b-1) - 1)`, no zero point;
asymmetric: `scale = (max - min) / (2^b - 1)`, `zero_point = round(-min / scale)` over a range that includes 0, as in
`schemes/scheme.py`. Scales are rounded up to their dtype, so the error of a weight is at most half of its group's scale.

Blob: integers (`b` bits each), scales, zero points (`b` bits each; asymmetric only).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from spaces.errors import StageError
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
from spaces.quantization.schemes.scheme import Grid

WIDTHS = (2, 3, 4, 5, 6, 7, 8, 16)


@dataclass(frozen=True)
class Uniform(WeightFormat):
    """The uniform format.

    Attributes:
        bits: Bits of an integer: 2 to 8, or 16.
        group: What shares a scale: `tensor`, `channel`, or a number of consecutive inputs of a channel.
        symmetric: Whether zero points are left out.
        scale_dtype: `float16` or `float32`.

    Raises:
        ConfigError: An option has no such value.
    """

    name: ClassVar[str] = "uniform"
    knobs: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"weight_bits": "bits", "group": "group", "symmetric": "symmetric"}
    )
    bits: int = field(default=4, metadata=one_of(WIDTHS))
    group: Group = field(default="channel", metadata=GROUP)
    symmetric: bool = False
    scale_dtype: str = field(default="float16", metadata=one_of(FLOATS))

    def encode(self, weight: Weight, axis: int = 0, importance: Weight | None = None) -> Packed:
        """Quantizes and packs a weight; `importance` is not used."""
        del importance
        check_finite(weight, self.name)
        groups = Groups(weight.shape, axis, self.group)
        rows = groups.rows(weight)
        low = np.minimum(groups.reduce(np.minimum, rows), 0)
        high = np.maximum(groups.reduce(np.maximum, rows), 0)
        scale, zero = self.grid(low, high)
        steps = rows / groups.expand(scale)
        np.round(steps, out=steps)
        steps += groups.expand(zero)
        return self._packed(np.clip(steps, 0, 2**self.bits - 1), scale, zero, groups)

    def grid(self, low: Weight, high: Weight) -> tuple[Weight, Weight]:
        """Returns scales and zero points of ranges that include 0, any shape; zero points in `[0, 2^bits)`, as floats."""
        half = 2 ** (self.bits - 1)
        with np.errstate(over="ignore"):  # a range beyond float32 is refused as a scale that does not fit
            spread = np.maximum(-low, high) / (half - 1) if self.symmetric else (high - low) / (2 * half - 1)
        scale = stored_scales(spread, self.scale_dtype, self.name)
        zero = np.full_like(scale, half) if self.symmetric else np.round(-low / scale)
        return scale, zero

    def decode(self, blob: bytes, shape: tuple[int, ...], axis: int = 0) -> Weight:
        """Returns `scale * (q - zero_point)`, float32."""
        return groups_weight(*self.integers(blob, shape, axis), Groups(shape, axis, self.group))

    def integers(self, blob: bytes, shape: tuple[int, ...], axis: int = 0) -> tuple[Weight, Weight, Weight]:
        """Returns unsigned integers `(n_rows, n_weights)`, scales and zero points `(n_groups,)`, all as float32."""
        groups, reader = Groups(shape, axis, self.group), BlobReader(blob)
        steps = reader.integers(int(np.prod(shape)), self.bits).astype(np.float32)
        scale = reader.numbers(groups.n_groups, self.scale_dtype)
        zero = np.full_like(scale, 2 ** (self.bits - 1))
        if not self.symmetric:
            zero = reader.integers(groups.n_groups, self.bits).astype(np.float32)
        reader.end()
        return steps.reshape(groups.matrix_shape), scale, zero

    def on_grid(self, packed: Packed) -> GridWeight:
        """Returns the integers, unsigned with zero points, or signed without."""
        groups = Groups(packed.values.shape, packed.axis, self.group)
        steps, scale, zero = self.integers(packed.blob, packed.values.shape, packed.axis)
        if self.symmetric:
            return GridWeight(groups, (steps - 2 ** (self.bits - 1)).astype(np.int32), scale, None, self.bits)
        return GridWeight(groups, steps.astype(np.int32), scale, zero.astype(np.int32), self.bits)

    def n_bytes(self, shape: tuple[int, ...], axis: int = 0) -> int:
        """Returns integers + scales + zero points."""
        n_groups = Groups(shape, axis, self.group).n_groups
        scales = n_groups * np.dtype(self.scale_dtype).itemsize
        zeros = 0 if self.symmetric else n_packed_bytes(n_groups, self.bits)
        return n_packed_bytes(int(np.prod(shape)), self.bits) + scales + zeros

    def _packed(self, steps: Weight, scale: Weight, zero: Weight, groups: Groups) -> Packed:
        blob = pack_bits(steps.astype(np.uint16), self.bits) + stored_numbers(scale, self.scale_dtype)
        blob += b"" if self.symmetric else pack_bits(zero.astype(np.uint16), self.bits)
        return Packed(self, blob, groups.axis, groups_weight(steps, scale, zero, groups))


def groups_weight(steps: Weight, scale: Weight, zero: Weight, groups: Groups) -> Weight:
    """Returns the weight of integers with a scale and a zero point for each group."""
    return groups.weight((steps - groups.expand(zero)) * groups.expand(scale))


def pack(integers: NDArray[np.integer], grid: Grid, bits: int | None = None) -> Packed:
    """Packs integers that are already on a grid, e.g. after learned rounding; nothing is rounded again.

    Args:
        integers: In the signed domain of the grid, `[-2^(bits-1), 2^(bits-1))`, in the weight's shape.
        grid: Their scales and zero points, which are stored as float32 and `bits` bits.
        bits: The integers' true width where it is less than that of the grid's storage type.

    Raises:
        StageError: An integer or a zero point needs more bits.
    """
    bits = grid.bits if bits is None else bits
    half = 2 ** (bits - 1)
    for kind, values in (("integer", integers), ("zero point", grid.zero_point)):
        if values.size and not -half <= values.min() <= values.max() < half:
            raise StageError(
                f"uniform: every {kind} must lie in [{-half}, {half}) to be stored in {bits} bits, but they reach from "
                f"{values.min()} to {values.max()}"
            )
    form = Uniform(
        bits, "tensor" if grid.axis is None else "channel", not np.any(grid.zero_point), scale_dtype="float32"
    )
    groups = Groups(integers.shape, grid.axis or 0, form.group)
    steps = groups.rows(integers + half).astype(np.float32)
    zero = np.asarray(grid.zero_point + half, np.float32).ravel()
    return form._packed(steps, grid.scale.ravel(), zero, groups)
