"""Vector codebooks: each few consecutive weights of a channel are a vector of a codebook, or a sum of vectors of two, times a scale.

The representation of AQLM and PV-Tuning (Malinovskii et al. 2024, arXiv 2405.14852). The codebooks begin as k-means of the vectors,
a second one of what the first leaves; each round moves the codebooks to the weighted means of their vectors and gives every
vector its nearest code. `tuned_codes.py` goes on from there with the inputs' second moments.

Bits per weight: `codebooks * bits / vector`, and the codebooks' and scales' share.

Blob: codes (`bits` each; of a vector all codebooks', one after the other), codebooks (float16), a scale for each channel (float16).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from spaces.quantization.formats.base import Packed, WeightFormat
from spaces.quantization.formats.packing.bit_packing import BlobReader, n_packed_bytes, pack_bits
from spaces.quantization.formats.packing.checks import between, check_finite, one_of
from spaces.quantization.formats.packing.groups import (
    Weight,
    as_matrix,
    from_matrix,
    matrix_shape,
    stored_numbers,
    stored_scales,
)

Indices = NDArray[np.int64]
_CHUNK = 2**14  # vectors that are compared with a codebook at a time


@dataclass(frozen=True)
class Codes(WeightFormat):
    """The codebook format.

    Attributes:
        bits: Bits of a code: a codebook has `2^bits` vectors; 2 to 12.
        vector: Consecutive inputs of a channel that are one vector: 1 to 16.
        codebooks: Codebooks whose vectors are added: 1 or 2.
        rounds: Rounds after the first codes.
        seed: Seed of the first vectors.

    Raises:
        ConfigError: An option has no such value.
    """

    name: ClassVar[str] = "codes"
    knobs: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"code_bits": "bits", "code_vector": "vector", "codebooks": "codebooks"}
    )
    uses_importance: ClassVar[bool] = True
    bits: int = field(default=8, metadata=between(2, 12))
    vector: int = field(default=4, metadata=between(1, 16))
    codebooks: int = field(default=1, metadata=one_of((1, 2)))
    rounds: int = field(default=10, metadata=between(0))
    seed: int = 0

    def encode(self, weight: Weight, axis: int = 0, importance: Weight | None = None) -> Packed:
        """Quantizes and packs a weight.

        Args:
            weight: Any shape.
            axis: The output-channel axis.
            importance: Weights of the squared errors, same shape, e.g. each input's second moment.

        Raises:
            StageError: A weight is not finite, or a channel is too large for a float16 scale.
        """
        check_finite(weight, self.name)
        rows = as_matrix(weight, axis)
        size = np.sqrt(np.square(rows, dtype=np.float64).mean(axis=1)) if rows.size else np.ones(len(rows))
        scale = stored_scales(size.astype(np.float32), "float16", self.name)
        each = np.ones(weight.shape, np.float32) if importance is None else importance.astype(np.float32)
        vectors = self._vectors(rows / scale[:, None])
        factors = self._vectors(as_matrix(each, axis) * np.square(scale)[:, None])
        codes, books = self._fitted(vectors, factors)
        return self.packed(codes, books, scale, weight.shape, axis)

    def packed(
        self, codes: Indices, books: Weight, scale: Weight, shape: tuple[int, ...], axis: int
    ) -> Packed:
        """Packs codes `(n_vectors, codebooks)`, codebooks `(codebooks, 2^bits, vector)` and scales `(n_channels,)`."""
        blob = (
            pack_bits(codes, self.bits) + stored_numbers(books, "float16") + stored_numbers(scale, "float16")
        )
        return Packed(self, blob, axis, self._weight(codes, books, scale, shape, axis))

    def decode(self, blob: bytes, shape: tuple[int, ...], axis: int = 0) -> Weight:
        """Returns the vectors of the codes, times their channel's scale."""
        return self._weight(*self.fields(blob, shape, axis), shape, axis)

    def fields(self, blob: bytes, shape: tuple[int, ...], axis: int) -> tuple[Indices, Weight, Weight]:
        """Returns what `packed` packs."""
        reader, n_channels = BlobReader(blob), shape[axis]
        n_vectors = self._n_vectors(shape, axis)
        codes = reader.integers(n_vectors * self.codebooks, self.bits).astype(np.int64)
        size = (self.codebooks, 2**self.bits, self.vector)
        books = reader.numbers(int(np.prod(size)), "float16").reshape(size)
        scale = reader.numbers(n_channels, "float16")
        reader.end()
        return codes.reshape(n_vectors, self.codebooks), books, scale

    def n_bytes(self, shape: tuple[int, ...], axis: int = 0) -> int:
        """Returns codes + codebooks + scales."""
        codes = n_packed_bytes(self._n_vectors(shape, axis) * self.codebooks, self.bits)
        return int(codes + 2 * self.codebooks * 2**self.bits * self.vector + 2 * shape[axis])

    def _n_vectors(self, shape: tuple[int, ...], axis: int) -> int:
        n_channels, n_inputs = matrix_shape(shape, axis)
        return int(n_channels * -(-n_inputs // self.vector))

    def _vectors(self, rows: NDArray[np.floating]) -> Weight:
        """Returns rows as vectors, the last of a row filled up with zeros, `(n_vectors, vector)`."""
        missing = -rows.shape[1] % self.vector
        return np.pad(rows.astype(np.float32), ((0, 0), (0, missing))).reshape(-1, self.vector)

    def _weight(
        self, codes: Indices, books: Weight, scale: Weight, shape: tuple[int, ...], axis: int
    ) -> Weight:
        n_channels, n_inputs = matrix_shape(shape, axis)
        rows = summed(codes, books).reshape(n_channels, -1)[:, :n_inputs] * scale[:, None]
        return from_matrix(rows, shape, axis)

    def _fitted(self, vectors: Weight, factors: Weight) -> tuple[Indices, Weight]:
        """Returns codes and codebooks of the round with the smallest weighted error."""
        rng = np.random.default_rng(self.seed)
        codes = np.zeros((len(vectors), self.codebooks), np.int64)
        books = np.zeros((self.codebooks, 2**self.bits, self.vector), np.float32)
        for m in range(self.codebooks):  # a codebook of zeros adds nothing
            rest = vectors - summed(codes[:, :m], books[:m])
            books[m] = half(rest[rng.choice(len(rest), len(books[m]), replace=len(rest) < len(books[m]))])
            codes[:, m] = _nearest(rest, factors, books[m])
        best = (weighted_error(vectors, factors, codes, books), codes.copy(), books.copy())
        for _ in range(self.rounds):
            for m in range(self.codebooks):
                others = [i for i in range(self.codebooks) if i != m]
                rest = vectors - summed(codes[:, others], books[others])
                books[m] = half(_means(rest, factors, codes[:, m], books[m]))
                codes[:, m] = _nearest(rest, factors, books[m])
            error = weighted_error(vectors, factors, codes, books)
            if error < best[0]:
                best = (error, codes.copy(), books.copy())
        return best[1], best[2]


def summed(codes: Indices, books: Weight) -> Weight:
    """Returns the sum of the codes' vectors, `(n_vectors, vector)`."""
    total = np.zeros((len(codes), books.shape[2]), np.float32)
    for m in range(codes.shape[1]):
        total += books[m][codes[:, m]]
    return total


def half(values: NDArray[np.floating]) -> Weight:
    """Rounds to float16, in which codebooks are stored."""
    return values.astype(np.float16).astype(np.float32)


def weighted_error(vectors: Weight, factors: Weight, codes: Indices, books: Weight) -> float:
    """Returns the weighted sum of squared errors."""
    return float((factors * np.square(vectors - summed(codes, books))).sum(dtype=np.float64))


def _nearest(vectors: Weight, factors: Weight, book: Weight) -> Indices:
    """Returns the code with the smallest weighted error of each vector, `(n_vectors,)`."""
    nearest = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), _CHUNK):
        part = slice(start, start + _CHUNK)
        # sum_j f_j (x_j - c_j)^2, without the term that is the same for every code
        distances = factors[part] @ np.square(book).T
        distances -= (2 * factors[part] * vectors[part]) @ book.T
        nearest[part] = distances.argmin(axis=1)
    return nearest


def _means(vectors: Weight, factors: Weight, codes: Indices, book: Weight) -> NDArray[np.float64]:
    """Returns the weighted mean of each code's vectors; a code without any gets one of the vectors with the largest error."""

    def totals(values: Weight) -> NDArray[np.float64]:
        columns = [np.bincount(codes, column, len(book)) for column in values.T]
        return np.asarray(np.stack(columns, axis=1), np.float64)

    weights = totals(factors)
    means = np.where(weights > 0, totals(factors * vectors) / np.maximum(weights, 1e-30), book)
    unused = np.flatnonzero(np.bincount(codes, minlength=len(book)) == 0)[: len(vectors)]
    if unused.size:
        errors = (factors * np.square(vectors - book[codes])).sum(axis=1)
        means[unused] = vectors[np.argsort(-errors, kind="stable")[: unused.size]]
    return means
