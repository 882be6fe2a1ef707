"""Candidates as rows of Optuna's internal numbers, for vectorised mutation; NaN where a knob is inactive."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search.samplers.candidates.context import Params

Array = NDArray[np.float64]

_OFF = object()  # marks an inactive knob
_REACH = 0.15  # largest standard deviation of a small step where there is no grid, as a share of the range
_FINER = 1.5  # powers of ten by which it may be smaller: early steps and late ones, near the best, are of all sizes


@dataclass(frozen=True)
class Axis:
    """One knob's distribution, with operations on arrays of values.

    Attributes:
        kind: The distribution.
    """

    kind: BaseDistribution

    @property
    def is_number(self) -> bool:
        """Whether the knob is numeric rather than categorical."""
        return not isinstance(self.kind, CategoricalDistribution)

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Returns `(n,)` numbers, uniform on the knob's own scale."""
        if isinstance(self.kind, CategoricalDistribution):
            return rng.integers(len(self.kind.choices), size=n).astype(np.float64)
        if self._on_a_grid:
            steps = math.floor((self._range.high - self._range.low) / (self._range.step or 1) + 1e-9)
            at: Array = rng.integers(steps + 1, size=n).astype(np.float64)
            return self.snap(self._range.low + at * (self._range.step or 1))
        return self.snap(self._unscaled(rng.uniform(*self._scaled_ends, size=n)))

    def step(self, values: Array, rng: np.random.Generator) -> Array:
        """Returns values near the given ones, `(n,)`; categories have no neighbours and are drawn anew."""
        if isinstance(self.kind, CategoricalDistribution):
            return self.draw(len(values), rng)
        sign = rng.choice([-1.0, 1.0], size=len(values))
        if self._on_a_grid:
            return self.snap(values + sign * (self._range.step or 1) * rng.geometric(0.6, size=len(values)))
        low, high = self._scaled_ends
        reach = _REACH * 10 ** -rng.uniform(0.0, _FINER, size=len(values))
        moved = self._scaled(values) + rng.normal(0.0, reach * (high - low), size=len(values))
        moved = self.snap(self._unscaled(np.clip(moved, low, high)))
        if isinstance(self.kind, IntDistribution):  # rounding must not undo the step
            moved = np.where(moved == values, self.snap(values + sign), moved)
        return moved

    def between(self, first: Array, second: Array, place: Array) -> Array:
        """Returns the values at places on the lines from `first`, 0, to `second`, 1, on the knob's scale, `(n,)`; it must be numeric."""
        low, high = self._scaled_ends
        start, stop = self._scaled(first), self._scaled(second)
        return self.snap(self._unscaled(np.clip(start + place * (stop - start), low, high)))

    def snap(self, values: Array) -> Array:
        """Returns the nearest values that the knob can have; the knob must be numeric."""
        low, step = self._range.low, self._range.step
        if step is not None:
            # 12 digits: the same number however it was computed
            values = np.round(low + np.rint((values - low) / step) * step, 12)
        return np.asarray(np.clip(values, low, self._range.high), dtype=np.float64)

    def external(self, numbers: Array) -> list[Any]:
        """Returns the values as in `trial.params`; `_OFF` where the knob is inactive."""
        off = np.isnan(numbers)
        values: list[Any]
        if isinstance(self.kind, FloatDistribution):
            values = numbers.tolist()
        else:
            values = np.where(off, 0.0, numbers).astype(np.int64).tolist()
        if isinstance(self.kind, CategoricalDistribution):
            values = list(map(self.kind.choices.__getitem__, values))
        for at in np.flatnonzero(off):
            values[at] = _OFF
        return values

    def internal(self, value: Any) -> float | None:
        """Returns Optuna's internal number of a value, or None if the knob cannot have it."""
        if isinstance(self.kind, CategoricalDistribution):
            return self._position.get((type(value), value))
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if self._range.low <= value <= self._range.high else None

    @cached_property
    def _position(self) -> dict[tuple[type, Any], float]:
        assert isinstance(self.kind, CategoricalDistribution)  # used only for these
        return {(type(choice), choice): float(at) for at, choice in enumerate(self.kind.choices)}

    # -- numbers ---------------------------------------------------------------------------------------------

    @property
    def _range(self) -> IntDistribution | FloatDistribution:
        assert isinstance(self.kind, IntDistribution | FloatDistribution)  # Optuna has no other
        return self.kind

    @property
    def _on_a_grid(self) -> bool:
        return not self._range.log and self._range.step is not None

    @property
    def _scaled_ends(self) -> tuple[float, float]:
        # half a step more at both ends, so that after rounding they are as frequent as other values
        half = 0.5 if self._range.log and isinstance(self.kind, IntDistribution) else 0.0
        ends = self._range.low - half, self._range.high + half
        return (math.log(ends[0]), math.log(ends[1])) if self._range.log else ends

    def _scaled(self, values: Array) -> Array:
        return np.asarray(np.log(values) if self._range.log else values)

    def _unscaled(self, values: Array) -> Array:
        return np.asarray(np.exp(values) if self._range.log else values)


class Codes:
    """Converts candidates to rows of numbers and back.

    Args:
        distributions: Of all knobs, in the space's order.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self.names = list(distributions)
        self.axes = [Axis(kind) for kind in distributions.values()]
        self._known = set(self.names)

    def encode(self, candidates: Sequence[Params]) -> Array:
        """Returns rows `(<= n, n_knobs)`; candidates with a knob or value that is not in the space are left out."""
        rows = [row for params in candidates if (row := self._row(params)) is not None]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.names))

    def _row(self, params: Params) -> list[float] | None:
        row = []
        for name, axis in zip(self.names, self.axes, strict=True):
            number = axis.internal(params[name]) if name in params else math.nan
            if number is None:
                return None
            row.append(number)
        return row if self._known.issuperset(params) else None

    def decode(self, rows: Array) -> list[dict[str, Any]]:
        """Returns the candidates of rows `(n, n_knobs)`."""
        columns = [axis.external(column) for axis, column in zip(self.axes, rows.T, strict=True)]
        whole = [dict(zip(self.names, row, strict=True)) for row in zip(*columns, strict=True)]
        if not np.isnan(rows).any():
            return whole
        return [{name: value for name, value in row.items() if value is not _OFF} for row in whole]

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Returns `(n, n_knobs)` random rows of a space without conditions."""
        return np.stack([axis.draw(n, rng) for axis in self.axes], axis=1)


def without(rows: Array, others: Array) -> Array:
    """Returns the distinct rows that are not in `others`, in their order."""
    both = np.ascontiguousarray(np.concatenate([others, rows]) + 0.0)  # + 0.0: -0.0 is 0.0
    as_bytes = both.view(np.dtype((np.void, both.dtype.itemsize * both.shape[1]))).ravel()
    first = np.sort(np.unique(as_bytes, return_index=True)[1])
    return np.asarray(both[first[first >= len(others)]])
