"""ShiftAddLLM: a weight is a sum of signs, each times a scale that is a sum of few powers of two, so products need no multiplier.

You et al. 2024, "ShiftAddLLM: Accelerating Pretrained LLMs via Post-Training Multiplication-Less Reparameterization" (arXiv
2406.05981): binary coding `w ~ sum_i alpha_i b_i` with `b_i` in {-1, 1}. It begins greedily, `b_i = sign(r)`,
`alpha_i = mean|r|`, `r -= alpha_i b_i`; each round solves least squares for the scales, rounds them to at most K signed powers of
two, and gives every weight the nearest of the `2^q` sums. The best round of each group is kept.

All exponents of a tensor lie within 31 octaves, those of a group within 17: so the float32 weights are exact sums, and
`shift_add_product` computes with integers, shifts and additions exactly what the dequantized weights compute.

Blob: signs (`q` bits a weight, a set bit is +1), scales (K terms of 6 bits for each of the `q` scales of a group: a sign and an
exponent, 0 for no term), the tensor's highest exponent (1 byte).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from spaces.errors import StageError
from spaces.quantization.formats.base import Packed, WeightFormat
from spaces.quantization.formats.packing.bit_packing import BlobReader, n_packed_bytes, pack_bits
from spaces.quantization.formats.packing.checks import GROUP, between, check_finite
from spaces.quantization.formats.packing.groups import Group, Groups, Weight

Terms = NDArray[np.int64]
_TERM_BITS = 6
_OCTAVES = 31  # of a tensor's exponents: code 31 is the highest, 0 no term
_GROUP_OCTAVES = 17  # 17 bits and the carries of 32 terms fit the 24 bits of a float32
_CHUNK = 2**20  # weights that are encoded at a time, for the processor's caches
_HIGHEST, _LOWEST = 120, -90  # exponents of powers of two that are normal float32 numbers


@dataclass(frozen=True)
class ShiftAdd(WeightFormat):
    """The shift-and-add format.

    Attributes:
        bits: Signs, and so scales, of a weight: 1 to 8.
        group: What shares scales: `tensor`, `channel`, or a number of consecutive inputs of a channel.
        terms: Most powers of two in a scale: 1 to 4.
        rounds: Rounds of least squares after the greedy codes.

    Raises:
        ConfigError: An option has no such value.
    """

    name: ClassVar[str] = "shift_add"
    knobs: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"weight_bits": "bits", "group": "group", "scale_terms": "terms"}
    )
    uses_importance: ClassVar[bool] = True
    bits: int = field(default=3, metadata=between(1, 8))
    group: Group = field(default="channel", metadata=GROUP)
    terms: int = field(default=3, metadata=between(1, 4))
    rounds: int = field(default=8, metadata=between(0))

    def encode(self, weight: Weight, axis: int = 0, importance: Weight | None = None) -> Packed:
        """Quantizes and packs a weight.

        Args:
            weight: Any shape.
            axis: The output-channel axis.
            importance: Weights of the squared errors, same shape, e.g. each input's second moment.

        Raises:
            StageError: A weight is not finite, or above 2^120.
        """
        check_finite(weight, self.name)
        groups = Groups(weight.shape, axis, self.group)
        top = _top_exponent(weight)
        rows = _padded(groups.rows(weight), groups)
        each = np.ones(weight.shape, np.float32) if importance is None else importance.astype(np.float32)
        factors = _padded(groups.rows(each), groups)
        step = max(1, _CHUNK // max(rows.shape[1], 1))
        parts = [
            self._encode_groups(rows[i : i + step], factors[i : i + step], top)
            for i in range(0, len(rows), step)
        ]
        codes = _trimmed(np.concatenate([codes for codes, _ in parts]), groups)
        terms = np.concatenate([terms for _, terms in parts])
        blob = pack_bits(codes, self.bits) + pack_bits(terms, _TERM_BITS) + bytes([top + 128])
        return Packed(self, blob, axis, groups.weight(_values(codes, terms, top, groups)))

    def decode(self, blob: bytes, shape: tuple[int, ...], axis: int = 0) -> Weight:
        """Returns the sums of signs times scales, float32, exact."""
        groups = Groups(shape, axis, self.group)
        return groups.weight(_values(*self._fields(blob, groups), groups))

    def n_bytes(self, shape: tuple[int, ...], axis: int = 0) -> int:
        """Returns signs + scales + 1."""
        n_terms = Groups(shape, axis, self.group).n_groups * self.bits * self.terms
        return n_packed_bytes(int(np.prod(shape)), self.bits) + n_packed_bytes(n_terms, _TERM_BITS) + 1

    def scales(self, packed: Packed) -> tuple[Terms, NDArray[np.int64]]:
        """Returns the powers of two of the scales: signs (-1, 0, 1) and exponents, `(n_groups, bits, terms)`."""
        groups = Groups(packed.values.shape, packed.axis, self.group)
        _, terms, top = self._fields(packed.blob, groups)
        signs, codes = _split(terms)
        return signs, codes - _OCTAVES + top

    def _fields(self, blob: bytes, groups: Groups) -> tuple[NDArray[np.uint8], Terms, int]:
        reader = BlobReader(blob)
        codes = reader.integers(int(np.prod(groups.shape)), self.bits).astype(np.uint8)
        shape = (groups.n_groups, self.bits, self.terms)
        terms = reader.integers(int(np.prod(shape)), _TERM_BITS).astype(np.int64).reshape(shape)
        top = reader.take(1)[0] - 128
        reader.end()
        return codes.reshape(groups.matrix_shape), terms, top

    def _encode_groups(self, rows: Weight, factors: Weight, top: int) -> tuple[NDArray[np.uint8], Terms]:
        """Returns the codes `(n, size)` and terms `(n, bits, terms)` of padded groups, `(n, size)`; padding has factor 0."""
        scales = _greedy(rows, factors > 0, self.bits)
        best = _Fit.of(rows, factors, self._rounded(scales, top), top)
        last = best
        for _ in range(self.rounds):
            last = _Fit.of(rows, factors, self._rounded(last.least_squares(), top), top)
            best = best.where_better(last)
        return best.codes, best.terms

    def _rounded(self, scales: NDArray[np.floating], top: int) -> Terms:
        """Rounds scales `(n, bits)` to sums of powers of two, nearest first; returns their 6-bit terms."""
        left: NDArray[np.float64] = scales.astype(np.float64)
        made: list[Terms] = []
        for _ in range(self.terms):
            mantissa, exponent = np.frexp(np.abs(left))
            code = exponent - (mantissa < 0.75) - top + _OCTAVES
            code = np.where((left == 0) | (code < 1), 0, np.minimum(code, _OCTAVES))
            made.append(np.asarray(code | np.where(left < 0, _OCTAVES + 1, 0), np.int64))
            left = left - _powers(made[-1], top)
        terms = np.stack(made, axis=-1)
        _, codes = _split(terms)
        highest = codes.max(axis=(1, 2), keepdims=True)
        return np.where((codes == 0) | (codes <= highest - _GROUP_OCTAVES), 0, terms)


def shift_add_product(packed: Packed, x: NDArray[np.integer]) -> tuple[NDArray[np.int64], int]:
    """Multiplies a `shift_add` weight with integers by additions and shifts only.

    Args:
        packed: A weight of shape `(n_channels, n_inputs)`, `axis=0`.
        x: Integers, `(n_inputs, n)`, whose absolute values add up to less than 2^26 in every column, so that int64 holds the sums.

    Returns:
        Integers `(n_channels, n)` and an exponent: the product is `integers * 2^exponent`, exactly.
    """
    form = packed.format
    if not isinstance(form, ShiftAdd):
        raise StageError(f"shift_add_product needs a shift_add weight, not {form.name}")
    groups = Groups(packed.values.shape, packed.axis, form.group)
    codes, terms, top = form._fields(packed.blob, groups)
    signs, exponents = _split(terms)
    n_rows = groups.matrix_shape[0]
    shape = (n_rows, -1, form.bits, form.terms)
    signs, exponents = signs.reshape(shape), exponents.reshape(shape)
    starts = np.append(0, np.cumsum(groups.counts))
    total = np.zeros((n_rows, x.shape[1]), np.int64)
    for g, (start, end) in enumerate(pairwise(starts)):
        for i in range(form.bits):
            positive = (codes[:, start:end] >> i & 1).astype(bool)
            chosen = x[start:end].astype(np.int64)
            sums = np.array([chosen[row].sum(axis=0) - chosen[~row].sum(axis=0) for row in positive])
            for k in range(form.terms):
                shifted = sums << np.maximum(exponents[:, g, i, k], 1)[:, None] - 1
                total += np.where(exponents[:, g, i, k] > 0, signs[:, g, i, k], 0)[:, None] * shifted
    return total, top - _OCTAVES + 1


def bits_by_share(
    scores: Mapping[str, float], sizes: Mapping[str, int], shares: Mapping[int, float]
) -> dict[str, int]:
    """Gives every layer its bits so that each width has its share of the weights, the lowest scores the fewest bits.

    ShiftAddLLM, section 4.3: layers in ascending order of `layer_score`, widths by cumulative share. A layer gets the width in
    whose share its middle weight lies.

    Args:
        scores: Sensitivity by layer.
        sizes: Number of weights by layer.
        shares: Share of the weights by width; they add up to 1.

    Raises:
        StageError: The shares do not add up to 1.
    """
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise StageError(f"shift_add: the shares of the widths must add up to 1, but {dict(shares)} do not")
    widths = sorted(shares)
    ends = np.cumsum([shares[width] for width in widths])
    total, done, found = sum(sizes.values()), 0, {}
    for layer in sorted(scores, key=lambda name: (scores[name], name)):
        middle = (done + sizes[layer] / 2) / total
        found[layer] = widths[min(int(np.searchsorted(ends, middle)), len(widths) - 1)]
        done += sizes[layer]
    return found


def layer_score(weight: Weight, importance: Weight | None = None) -> float:
    """Returns `||W / d|| std(W / d)^2`, with `1 / d^2` the importance (ShiftAddLLM: the diagonal of the inputs' second moments).

    Args:
        weight: Any shape.
        importance: Same shape, or one that broadcasts to it; None takes 1.
    """
    scaled = weight.astype(np.float64) * (1.0 if importance is None else np.sqrt(importance))
    return float(np.linalg.norm(scaled) * scaled.std() ** 2)


def _top_exponent(weight: Weight) -> int:
    """Returns the least `e` with `max|w| < 2^e`, the highest exponent of a scale's terms."""
    largest = float(np.abs(weight).max(initial=0))
    exponent = int(np.frexp(largest)[1])
    if exponent > _HIGHEST:
        raise StageError(f"weight_format=shift_add: a weight of {largest:.3g} is above 2^{_HIGHEST}")
    return max(exponent, _LOWEST)


def _padded(rows: Weight, groups: Groups) -> Weight:
    """Returns the groups as `(n_groups, size)`, the short ones with zeros at the end."""
    missing = -rows.shape[1] % max(groups.size, 1)
    return np.pad(rows, ((0, 0), (0, missing))).reshape(-1, max(groups.size, 1))


def _trimmed(padded: NDArray[np.uint8], groups: Groups) -> NDArray[np.uint8]:
    """Undoes `_padded`."""
    n_rows, n = groups.matrix_shape
    return np.ascontiguousarray(padded.reshape(n_rows, -1)[:, :n])


def _signs(n_bits: int) -> NDArray[np.float32]:
    """Returns the signs of every code, `(2^bits, bits)`."""
    codes = np.arange(2**n_bits)
    return np.where(codes[:, None] >> np.arange(n_bits) & 1, 1, -1).astype(np.float32)


def _split(terms: Terms) -> tuple[Terms, Terms]:
    """Returns signs (0 for no term) and exponent codes."""
    codes = terms & _OCTAVES
    return np.where(codes == 0, 0, np.where(terms > _OCTAVES, -1, 1)), codes


def _powers(terms: Terms, top: int) -> NDArray[np.float64]:
    signs, codes = _split(terms)
    return np.ldexp(signs.astype(np.float64), codes - _OCTAVES + top)


def _sums(terms: Terms, top: int) -> Weight:
    """Returns the value of every code in every group, `(n, 2^bits)`, exact."""
    scales = _powers(terms, top).sum(axis=-1)
    return np.asarray(scales @ _signs(terms.shape[1]).astype(np.float64).T, np.float32)


def _values(codes: NDArray[np.uint8], terms: Terms, top: int, groups: Groups) -> Weight:
    """Returns the weights, as `groups.matrix_shape`."""
    sums = _sums(terms, top)
    first = groups.expand(np.arange(groups.n_groups) * sums.shape[1])
    return sums.ravel()[first + codes]


def _greedy(rows: Weight, present: NDArray[np.bool_], n_bits: int) -> Weight:
    """Returns the scales of the greedy binary coding, `(n, bits)`."""
    residual, counts = rows.copy(), np.maximum(present.sum(axis=1), 1)
    scales = np.empty((len(rows), n_bits), np.float32)
    for i in range(n_bits):
        scales[:, i] = (np.abs(residual) * present).sum(axis=1) / counts
        residual -= np.copysign(scales[:, i, None], residual)
    return scales


@dataclass(frozen=True, eq=False)
class _Fit:
    """Groups with scales, each weight at the nearest sum.

    Attributes:
        terms: The scales' powers of two, `(n, bits, terms)`.
        codes: Nearest code of each weight, `(n, size)`.
        signs: Signs of the sums, in ascending order of the sums, `(n, 2^bits, bits)`.
        counts: Summed factors of the weights at each of these sums, `(n, 2^bits)`.
        totals: Summed weights times factors at each of these sums, `(n, 2^bits)`.
        gains: By how much the scales lower the squared error from that of zeros, `(n,)`.
    """

    terms: Terms
    codes: NDArray[np.uint8]
    signs: Weight
    counts: NDArray[np.float64]
    totals: NDArray[np.float64]
    gains: NDArray[np.float64]

    @classmethod
    def of(cls, rows: Weight, factors: Weight, terms: Terms, top: int) -> "_Fit":
        """Gives every weight of the groups, `(n, size)`, the nearest sum."""
        sums = _sums(terms, top)
        order = np.argsort(sums, axis=1, kind="stable")
        ascending = np.take_along_axis(sums, order, axis=1)
        middles = ascending[:, :-1] / 2 + ascending[:, 1:] / 2
        rank = np.zeros(rows.shape, np.uint8)
        for k in range(middles.shape[1]):
            rank += rows > middles[:, k, None]
        index = (np.arange(len(rows)) * order.shape[1])[:, None] + rank

        def summed(values: Weight) -> NDArray[np.float64]:
            sums = np.bincount(index.ravel(), values.ravel(), order.size)
            return np.asarray(sums, np.float64).reshape(order.shape)

        counts, totals = summed(factors), summed(factors * rows)
        values = ascending.astype(np.float64)
        gains = (2 * values * totals - values**2 * counts).sum(axis=1)
        codes = order.astype(np.uint8).ravel()[index]
        return cls(terms, codes, _signs(terms.shape[1])[order], counts, totals, gains)

    def least_squares(self) -> NDArray[np.float64]:
        """Returns the scales that fit the weights best with these signs, `(n, bits)`."""
        transposed = np.swapaxes(self.signs, 1, 2)
        gram = transposed @ (self.signs * self.counts[..., None])
        # Equal bit planes make it singular; the smallest ridge that float64 needs leaves other groups as they are.
        ridge = 1e-9 * np.trace(gram, axis1=1, axis2=2)[:, None, None] + 1e-30
        scales = np.linalg.solve(gram + ridge * np.eye(gram.shape[1]), transposed @ self.totals[..., None])
        return np.asarray(scales[..., 0])

    def where_better(self, other: "_Fit") -> "_Fit":
        """Returns each group's better fit of the two."""
        better = other.gains > self.gains

        def chosen(mine: NDArray[Any], theirs: NDArray[Any]) -> NDArray[Any]:
            return np.where(better.reshape(-1, *[1] * (mine.ndim - 1)), theirs, mine)

        return _Fit(*(chosen(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)))
