"""Candidates as points between which distances are measured, knob by knob."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from search.samplers.candidates.context import Params

_FEW = (
    10  # a number with at most this many values may behave like a choice: its values count as different, too
)
_INACTIVE = -9.0  # stands for NaN, which is not equal to itself; no value has that code
_WIDE = 100.0  # numbers that span such a ratio are compared by their logarithms


class Encoding:
    """Turns candidates into points, one column a knob, and points into distances, one axis a way to differ.

    A choice differs or does not. A number differs by how far it is away, on its own scale; one of few values by its rank,
    and, on an axis of its own, by not being the same. An inactive knob differs by one from every active one.

    Args:
        candidates: All that will be encoded, at least as far as their values go.
        distributions: Those of the knobs, where they are known: the ends and the scale of numbers.
    """

    def __init__(
        self, candidates: Iterable[Params], distributions: Mapping[str, BaseDistribution] | None = None
    ) -> None:
        values: dict[str, dict[tuple[type, Any], None]] = {}
        for params in candidates:
            for name, value in params.items():
                values.setdefault(name, {})[type(value), value] = None
        known = distributions or {}
        self._columns = {name: _column(list(seen), known.get(name)) for name, seen in values.items()}
        kinds = [column.axes for column in self._columns.values()]
        self._axes = [(at, kind) for at, axes in enumerate(kinds) for kind in axes]

    @property
    def n_axes(self) -> int:
        """Number of ways to differ."""
        return len(self._axes)

    def points(self, candidates: Sequence[Params]) -> NDArray[np.float64]:
        """Returns `(n, n_knobs)`, NaN where a knob is inactive."""
        found = np.full((len(candidates), len(self._columns)), math.nan)
        for at, (name, column) in enumerate(self._columns.items()):
            found[:, at] = [column(params[name]) if name in params else math.nan for params in candidates]
        return found

    def distance(self, axis: int, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the distances `(n, m)` in [0, 1] along one axis of points `(n, n_knobs)` and `(m, n_knobs)`."""
        at, kind = self._axes[axis]
        x, y = a[:, at, None], b[None, :, at]
        gap = (x != y).astype(float) if kind == "differs" else np.minimum(np.abs(x - y), 1.0)
        inactive = np.isnan(x), np.isnan(y)
        if inactive[0].any() or inactive[1].any():
            gap = np.where(inactive[0] & inactive[1], 0.0, np.where(inactive[0] | inactive[1], 1.0, gap))
        return gap

    def weighted(
        self, rates: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Returns `sum(rates * distances)`, `(k, n, m)`, for `(k, n_axes)` rates.

        Knobs of few values come out of one matrix product: how far each of `a` is from each value, and who of `b` has it.
        """
        k, n, m = len(rates), len(a), len(b)
        far, has = [np.zeros((k, n))], [np.ones(m)]
        rest = []
        for at in range(a.shape[1]):
            axes = [axis for axis, (column, _) in enumerate(self._axes) if column == at]
            codes = np.nan_to_num(b[:, at], nan=_INACTIVE)
            levels = np.unique(codes)
            if len(levels) > _FEW + 2:  # + 2: inactive, and a value that nobody named
                rest += axes
                continue
            stand_ins = np.full((len(levels), a.shape[1]), math.nan)
            stand_ins[:, at] = np.where(levels == _INACTIVE, math.nan, levels)
            gap = sum(rates[:, axis, None, None] * self.distance(axis, a, stand_ins) for axis in axes)
            far += list(np.moveaxis(np.asarray(gap), 2, 0))
            has += [(codes == level).astype(float) for level in levels]
        total = (np.stack(far, axis=2).reshape(k * n, -1) @ np.stack(has)).reshape(k, n, m)
        for axis in rest:
            distance = self.distance(axis, a, b)
            for part, rate in zip(total, rates[:, axis], strict=True):
                part += rate * distance
        return np.asarray(total)


class _column:  # noqa: N801  # a function with a memory
    """One knob's values as numbers."""

    def __init__(self, seen: Sequence[tuple[type, Any]], distribution: BaseDistribution | None) -> None:
        self._codes: dict[tuple[type, Any], float] = {}
        self.axes: tuple[str, ...] = ("differs",)
        numbers = sorted(value for kind, value in seen if kind in (int, float) and math.isfinite(value))
        numeric = len(numbers) == len(seen)
        if numeric and len(numbers) > _FEW:
            self.axes = ("distance",)
            low, high = numbers[0], numbers[-1]
            if isinstance(distribution, IntDistribution | FloatDistribution):
                low, high = distribution.low, distribution.high
            self._log = low > 0 and high / low >= _WIDE
            self._low, self._span = self._scaled(low), (self._scaled(high) - self._scaled(low)) or 1.0
        elif numeric and len(numbers) > 2:
            self.axes = ("differs", "distance")
            last = len(numbers) - 1
            self._codes = {key: numbers.index(key[1]) / last for key in seen}
        else:
            self._codes = {key: float(code) for code, key in enumerate(seen)}

    def _scaled(self, value: float) -> float:
        return math.log(value) if self._log else float(value)

    def __call__(self, value: Any) -> float:
        if self._codes:
            return self._codes.get((type(value), value), -1.0)  # a value that nobody named differs from all
        if isinstance(value, bool) or not isinstance(value, int | float) or (self._log and value <= 0):
            return -1.0
        return (self._scaled(value) - self._low) / self._span
