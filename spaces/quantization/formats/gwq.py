"""GWQ: the weights with the largest gradients stay float16, the others are integers of few bits in groups.

Shao et al. 2024, "GWQ: Gradient-Aware Weight Quantization for Large Language Models" (arXiv 2411.00850): a share of the weights of
each layer, those with the largest absolute gradient of the loss, are outliers. The other weights are quantized by group,
`scale = (max - min) / (2^b - 1)`, `zero_point = round(-min / scale)`, with minimum and maximum taken without the outliers. Here the
range includes 0, so that a zero point has `b` bits.

Bits per weight: `(1 - share) b + (16 + b) / group + share (16 + ceil(log2 n))` for a layer of `n` weights.

Blob: integers of the weights that are no outliers (`b` bits each), scales, zero points, positions of the outliers in the
`(n_channels, n_inputs)` matrix (`ceil(log2 n)` bits each, ascending), outliers (float16).
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
from spaces.quantization.formats.packing.checks import GROUP, between, check_finite, one_of
from spaces.quantization.formats.packing.groups import Group, Groups, Weight, stored_numbers
from spaces.quantization.formats.uniform import WIDTHS, Uniform

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Gwq(WeightFormat):
    """The GWQ format.

    Attributes:
        bits: Bits of the integers: 2 to 8, or 16.
        group: What shares a scale: `tensor`, `channel`, or a number of consecutive inputs of a channel.
        outlier_share: Share of the weights that stay float16, in [0, 1).

    Raises:
        ConfigError: An option has no such value.
    """

    name: ClassVar[str] = "gwq"
    knobs: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"weight_bits": "bits", "group": "group", "outlier_share": "outlier_share"}
    )
    bits: int = field(default=4, metadata=one_of(WIDTHS))
    group: Group = field(default=64, metadata=GROUP)
    outlier_share: float = field(default=0.01, metadata=between(0, 1, below=True))

    def encode(self, weight: Weight, axis: int = 0, importance: Weight | None = None) -> Packed:
        """Quantizes and packs a weight.

        Args:
            weight: Any shape.
            axis: The output-channel axis.
            importance: Scores of which the highest are outliers, same shape, e.g. `|dL/dw|`; None takes `|w|`.

        Raises:
            StageError: A weight is not finite, or an outlier or a scale is too large for float16.
        """
        check_finite(weight, self.name)
        groups = Groups(weight.shape, axis, self.group)
        rows = groups.rows(weight)
        score = np.abs(rows) if importance is None else groups.rows(importance)
        outliers = self._positions(score.ravel())
        kept = np.ones(rows.size, bool)
        kept[outliers] = False
        low, high = _ranges(rows, kept.reshape(rows.shape), groups)
        scale, zero = self._uniform.grid(low, high)
        steps = np.round(rows / groups.expand(scale)) + groups.expand(zero)
        steps = np.clip(steps, 0, 2**self.bits - 1).ravel()[kept]
        exact = _float16(rows.ravel()[outliers])
        blob = pack_bits(steps.astype(np.uint16), self.bits) + stored_numbers(scale, "float16")
        blob += pack_bits(zero.astype(np.uint16), self.bits)
        blob += pack_bits(outliers, _index_bits(rows.size)) + stored_numbers(exact, "float16")
        return Packed(self, blob, axis, _weight(steps, scale, zero, outliers, exact, groups))

    def decode(self, blob: bytes, shape: tuple[int, ...], axis: int = 0) -> Weight:
        """Returns `scale * (q - zero_point)`, and the outliers at their positions."""
        groups, reader = Groups(shape, axis, self.group), BlobReader(blob)
        n = int(np.prod(shape))
        n_outliers = self._n_outliers(n)
        steps = reader.integers(n - n_outliers, self.bits).astype(np.float32)
        scale = reader.numbers(groups.n_groups, "float16")
        zero = reader.integers(groups.n_groups, self.bits).astype(np.float32)
        outliers = reader.integers(n_outliers, _index_bits(n)).astype(np.int64)
        exact = reader.numbers(n_outliers, "float16")
        reader.end()
        return _weight(steps, scale, zero, outliers, exact, groups)

    def n_bytes(self, shape: tuple[int, ...], axis: int = 0) -> int:
        """Returns integers + scales + zero points + positions + outliers."""
        n, n_groups = int(np.prod(shape)), Groups(shape, axis, self.group).n_groups
        n_outliers = self._n_outliers(n)
        integers = n_packed_bytes(n - n_outliers, self.bits)
        per_group = 2 * n_groups + n_packed_bytes(n_groups, self.bits)
        return integers + per_group + n_packed_bytes(n_outliers, _index_bits(n)) + 2 * n_outliers

    @property
    def _uniform(self) -> Uniform:
        return Uniform(self.bits, self.group)

    def _n_outliers(self, n: int) -> int:
        return round(self.outlier_share * n)

    def _positions(self, score: Weight) -> Positions:
        """Returns the positions of the highest scores, ascending."""
        n = self._n_outliers(score.size)
        return np.sort(np.argpartition(-score, n - 1)[:n]) if n else np.zeros(0, np.int64)


def _index_bits(n: int) -> int:
    return max(1, (n - 1).bit_length())


def _ranges(rows: Weight, kept: NDArray[np.bool_], groups: Groups) -> tuple[Weight, Weight]:
    """Returns each group's range without outliers; it includes 0, the value that stands for them."""
    ordinary = np.where(kept, rows, np.float32(0))
    low, high = groups.reduce(np.minimum, ordinary), groups.reduce(np.maximum, ordinary)
    return np.minimum(low, 0), np.maximum(high, 0)


def _float16(values: Weight) -> Weight:
    with np.errstate(over="ignore"):
        half = values.astype(np.float16).astype(np.float32)
    if not np.isfinite(half).all():
        raise StageError(f"weight_format=gwq: an outlier of {np.abs(values).max():.3g} does not fit float16")
    return half


def _weight(
    steps: Weight, scale: Weight, zero: Weight, outliers: Positions, exact: Weight, groups: Groups
) -> Weight:
    kept = np.ones(groups.matrix_shape, bool).ravel()
    kept[outliers] = False
    flat = np.empty(kept.size, np.float32)
    flat[kept] = (steps - groups.expand(zero).ravel()[kept]) * groups.expand(scale).ravel()[kept]
    flat[outliers] = exact
    return groups.weight(flat.reshape(groups.matrix_shape))
