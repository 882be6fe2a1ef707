"""PV-Tuning of a codebook weight: codebooks and codes in turns, towards the layer's outputs.

Malinovskii et al. 2024, "PV-Tuning: Beyond Straight-Through Estimation for Extreme LLM Compression" (arXiv 2405.14852). The V step
moves the codebooks with the codes fixed; the P step changes the codes of at most a share of the vectors, those that lower the
loss most, because a step that changes all at once need not lower it. There the loss is the network's; here it is the squared
error of one layer's outputs, `tr(E H E^T)` with `E` the weights' error and `H` the inputs' second moments, for which both steps are
exact: the V step takes the best step along its gradient, the P step the best code of each vector with all others fixed.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spaces.errors import StageError
from spaces.quantization.formats.base import Packed
from spaces.quantization.formats.codes import Codes, Indices, half, summed
from spaces.quantization.formats.packing.groups import Weight, as_matrix

_CHUNK = 2**22  # losses that are computed at a time

Floats = NDArray[np.float64]


def tuned(
    packed: Packed, weight: Weight, second_moments: Floats, steps: int = 10, changed_share: float = 0.05
) -> Packed:
    """Returns a weight of the same format with a layer error that is not larger.

    Args:
        packed: A weight of format `codes`.
        weight: The float weight.
        second_moments: `X X^T` of the layer's inputs, `(n_inputs, n_inputs)`.
        steps: V and P steps.
        changed_share: Most codes that a P step changes, as a share of the vectors, in (0, 1].

    Raises:
        StageError: The weight has another format, or the second moments another shape.
    """
    form = packed.format
    if not isinstance(form, Codes):
        raise StageError(f"PV-tuning needs a codes weight, not {form.name}")
    rows = as_matrix(weight, packed.axis).astype(np.float64)
    if second_moments.shape != (rows.shape[1], rows.shape[1]):
        raise StageError(
            f"PV-tuning: the second moments of {rows.shape[1]} inputs must be a square of that size, not of shape "
            f"{second_moments.shape}"
        )
    codes, books, scale = form.fields(packed.blob, weight.shape, packed.axis)
    state = CodedLayer(
        _padded(rows, form.vector), _padded_square(second_moments, form.vector), codes, books, scale
    )
    for _ in range(steps):
        state = state.moved_codebooks().changed_codes(changed_share)
    return form.packed(state.codes, state.books, scale, weight.shape, packed.axis)


@dataclass(frozen=True, eq=False)
class CodedLayer:
    """One layer while it is tuned.

    Attributes:
        rows: The float weight, filled up with zeros to whole vectors, `(n_channels, n_inputs)`.
        moments: The inputs' second moments, filled up likewise.
        codes: `(n_vectors, codebooks)`.
        books: `(codebooks, 2^bits, vector)`.
        scale: `(n_channels,)`.
    """

    rows: Floats
    moments: Floats
    codes: Indices
    books: Weight
    scale: Weight

    @property
    def errors(self) -> Floats:
        """The weights' errors, `(n_channels, n_inputs)`."""
        values = summed(self.codes, self.books).reshape(self.rows.shape) * self.scale[:, None]
        return np.asarray(values - self.rows, np.float64)

    @property
    def loss(self) -> float:
        """The squared error of the layer's outputs."""
        errors = self.errors
        return float(((errors @ self.moments) * errors).sum())

    def moved_codebooks(self) -> "CodedLayer":
        """Returns the V step: the codes stay."""
        gradient = self._by_vector((self.errors @ self.moments) * self.scale[:, None])
        curvature = self._by_vector(np.outer(np.square(self.scale, dtype=np.float64), np.diag(self.moments)))
        down = np.zeros(self.books.shape, np.float32)
        for m, book in enumerate(down):
            at = self.codes[:, m]
            for j in range(book.shape[1]):
                slope = np.bincount(at, gradient[:, j], len(book))
                book[:, j] = -slope / np.maximum(np.bincount(at, curvature[:, j], len(book)), 1e-30)
        change = summed(self.codes, down).reshape(self.rows.shape) * self.scale[:, None]
        slope, bend = (self.errors @ self.moments * change).sum(), (change @ self.moments * change).sum()
        step = -slope / bend if bend > 0 else 0.0
        moved = replace(self, books=half(self.books + step * down))
        return moved if moved.loss < self.loss else self

    def changed_codes(self, share: float) -> "CodedLayer":
        """Returns the P step: at most a share of the vectors get other codes; the codebooks stay."""
        codes, errors = self.codes.copy(), self.errors
        pulls = errors @ self.moments
        most = int(share * len(codes)) // codes.shape[1]
        for m, book in enumerate(self.books):
            losses = _CodeLosses.of(book, self.moments)
            chosen = self._most_to_gain(losses, pulls, codes[:, m], most)
            for b in range(losses.n_blocks):
                rows = np.flatnonzero(chosen[:, b])
                if rows.size:
                    self._change(losses, codes[:, m], errors, pulls, b, rows)
        return replace(self, codes=codes)

    def _change(
        self,
        losses: "_CodeLosses",
        codes: Indices,
        errors: Floats,
        pulls: Floats,
        b: int,
        rows: NDArray[np.intp],
    ) -> None:
        """Gives the vectors of block `b` in some rows their best code, in place."""
        d = self.books.shape[2]
        part, at = slice(b * d, (b + 1) * d), rows * losses.n_blocks + b
        found = losses(pulls[rows, None, part], codes[at, None], self.scale[rows], slice(b, b + 1))
        best = found[:, 0].argmin(axis=1)
        change = (losses.book[best] - losses.book[codes[at]]) * self.scale[rows, None]
        codes[at] = best
        errors[rows, part] += change
        pulls[rows] += change @ self.moments[part]

    def _most_to_gain(
        self, losses: "_CodeLosses", pulls: Floats, codes: Indices, most: int
    ) -> NDArray[np.bool_]:
        """Returns which vectors lower the loss most by another code, `(n_channels, n_blocks)`."""
        shape = (len(pulls), losses.n_blocks)
        by_block, now, gains = pulls.reshape(*shape, -1), codes.reshape(shape), np.empty(shape)
        step = max(1, _CHUNK // max(losses.squares.size, 1))
        for start in range(0, len(pulls), step):  # all codes of all vectors are compared
            rows = slice(start, start + step)
            gains[rows] = -losses(by_block[rows], now[rows], self.scale[rows]).min(axis=2)
        chosen = np.zeros(gains.size, bool)
        chosen[np.argsort(-gains, axis=None, kind="stable")[:most]] = True
        return (chosen & (gains.ravel() > 0)).reshape(shape)

    def _by_vector(self, values: Floats) -> Floats:
        return values.reshape(-1, self.books.shape[2])


@dataclass(frozen=True, eq=False)
class _CodeLosses:
    """By how much other codes change the loss: `c H_bb c + 2 c (E H)_b` for a change `c` of the weights of block `b`.

    Attributes:
        book: The codebook, `(2^bits, vector)`.
        diagonal: The blocks of the second moments, `(n_blocks, vector, vector)`.
        squares: `k H_bb k` of each code's vector, `(n_blocks, 2^bits)`.
    """

    book: Floats
    diagonal: Floats
    squares: Floats

    @classmethod
    def of(cls, book: Weight, moments: Floats) -> "_CodeLosses":
        """Returns those of one codebook."""
        d = book.shape[1]
        n, wide = len(moments) // d, book.astype(np.float64)
        diagonal = moments.reshape(n, d, n, d)[np.arange(n), :, np.arange(n)]
        return cls(wide, diagonal, ((wide @ diagonal) * wide).sum(axis=2))

    @property
    def n_blocks(self) -> int:
        return len(self.diagonal)

    def __call__(self, pulls: Floats, now: Indices, scale: Weight, blocks: slice = slice(None)) -> Floats:
        """Returns the change of the loss by each code, `(n_rows, n_blocks, 2^bits)`.

        Args:
            pulls: `(E H)_b`, `(n_rows, n_blocks, vector)`.
            now: The present codes, `(n_rows, n_blocks)`.
            scale: `(n_rows,)`.
            blocks: The blocks.
        """
        squares, present = self.squares[blocks], self.book[now]
        bent = np.einsum("rbd,bde->rbe", present, self.diagonal[blocks])
        own = np.take_along_axis(np.broadcast_to(squares, (len(now), *squares.shape)), now[..., None], axis=2)
        s = scale[:, None, None].astype(np.float64)
        # (k - now) H (k - now) = k H k - 2 k H now + now H now
        change = (2 * s * pulls - 2 * s**2 * bent) @ self.book.T
        change += s**2 * (squares + own)
        return np.asarray(change - 2 * s * (pulls * present).sum(axis=2, keepdims=True))


def _padded(rows: Floats, vector: int) -> Floats:
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % vector)))


def _padded_square(moments: Floats, vector: int) -> Floats:
    missing = -len(moments) % vector
    return np.pad(moments.astype(np.float64), ((0, missing), (0, missing)))
