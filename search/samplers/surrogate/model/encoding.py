"""Encodes candidates as points, and computes distances between points knob by knob."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from search.samplers.candidates.context import Params
from search.samplers.surrogate.model.counts import Counts, Group, like_knobs

_FEW = 10  # a number with at most this many values may act like a category: its values also differ by not being equal
_NUMBERS = {int, float}
_ABSENT = object()  # stands for the value of an inactive knob
_INACTIVE = -9.0  # stands for NaN, which is not equal to itself; no value has that code
_WIDE = 100.0  # numbers that span such a ratio are compared by their logarithms


class Encoding:
    """Turns candidates into points, one column per knob, and computes distances, one or two axes per knob.

    Distances are in [0, 1]. A categorical knob has one axis: 0 for equal values, 1 for others. A number has one axis: the difference
    on its linear or logarithmic scale. A number with few values has two: the difference of the ranks, and 0
    or 1 as for a category. An inactive knob has distance 1 from every active one.

    Args:
        candidates: Must contain every value of a knob that will be encoded.
        distributions: Of the knobs, where they are known: they give the range of numbers.

    Attributes:
        counts: Distances by how many of several like knobs have each value.
    """

    def __init__(
        self, candidates: Iterable[Params], distributions: Mapping[str, BaseDistribution] | None = None
    ) -> None:
        values: dict[str, dict[tuple[type, Any], None]] = {}
        for params in candidates:
            for name, value in params.items():
                values.setdefault(name, {})[type(value), value] = None
        known = distributions or {}
        self._columns = {
            name: _Column(list(values_of_knob), known.get(name)) for name, values_of_knob in values.items()
        }
        kinds = [column.axes for column in self._columns.values()]
        self._axes = [(at, kind) for at, axes in enumerate(kinds) for kind in axes]
        self._ranges = [  # axes of numbers with many values, and their columns
            (axis, at) for axis, (at, _) in enumerate(self._axes) if kinds[at] == ("distance",)
        ]
        columns = list(self._columns.values())
        self.counts = Counts(
            [_group(like, columns[like[0]]) for like in like_knobs({k: list(v) for k, v in values.items()})]
        )

    @property
    def n_axes(self) -> int:
        """Number of axes along which distances are computed."""
        return len(self._axes)

    def points(self, candidates: Sequence[Params]) -> NDArray[np.float64]:
        """Returns the candidates as points `(n, n_knobs)`, NaN where a knob is inactive."""
        points = np.full((len(candidates), len(self._columns)), math.nan)
        for at, (name, column) in enumerate(self._columns.items()):
            points[:, at] = column.codes_of([params.get(name, _ABSENT) for params in candidates])
        return points

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
        """Returns `sum(rates * distances)` over the axes, `(k, n, m)`.

        For knobs with few values this is one matrix product: the distances of `a` from each value, times a
        one-hot encoding of `b`. For ranges of numbers it is the city-block distance.

        Args:
            rates: `(k, n_axes)`, none negative.
            a: `(n, n_knobs)`.
            b: `(m, n_knobs)`.
        """
        from scipy.spatial.distance import cdist

        ranges = [
            (axis, at) for axis, at in self._ranges if _all_in_range(a[:, at]) and _all_in_range(b[:, at])
        ]
        axes, columns = [axis for axis, _ in ranges], [at for _, at in ranges]
        total = self._over_levels(rates, a, b, set(range(a.shape[1])).difference(columns))
        if columns:
            for part, rate in zip(total, rates[:, axes], strict=True):
                part += cdist(rate * a[:, columns], rate * b[:, columns], "cityblock")
        return total

    def _over_levels(
        self,
        rates: NDArray[np.float64],
        a: NDArray[np.float64],
        b: NDArray[np.float64],
        columns: Iterable[int],
    ) -> NDArray[np.float64]:
        """Returns what `weighted` does, over the axes of some columns."""
        k, n, m = len(rates), len(a), len(b)
        distances, one_hot = [np.zeros((k, n))], [np.ones(m)]
        rest = []
        for at in columns:
            axes = [axis for axis, (column, _) in enumerate(self._axes) if column == at]
            codes = np.nan_to_num(b[:, at], nan=_INACTIVE)
            levels = np.unique(codes)
            if len(levels) > _FEW + 2:  # + 2: inactive, and a value that was not in `candidates`
                rest += axes
                continue
            stand_ins = np.full((len(levels), a.shape[1]), math.nan)
            stand_ins[:, at] = np.where(levels == _INACTIVE, math.nan, levels)
            gap = sum(rates[:, axis, None, None] * self.distance(axis, a, stand_ins) for axis in axes)
            distances += list(np.moveaxis(np.asarray(gap), 2, 0))
            one_hot += [(codes == level).astype(float) for level in levels]
        total = (np.stack(distances, axis=2).reshape(k * n, len(one_hot)) @ np.stack(one_hot)).reshape(
            k, n, m
        )
        for axis in rest:
            distance = self.distance(axis, a, b)
            for part, rate in zip(total, rates[:, axis], strict=True):
                part += rate * distance
        return np.asarray(total)


def _all_in_range(places: NDArray[np.float64]) -> bool:
    """Returns whether all places on an axis of numbers are active and in the knob's range: distances are differences."""
    return bool(((places >= 0) & (places <= 1)).all())


class _Column:
    """Maps one knob's values to numbers.

    Args:
        values: The knob's distinct values, each as (type, value).
        distribution: Of the knob, if it is known.
    """

    def __init__(self, values: Sequence[tuple[type, Any]], distribution: BaseDistribution | None) -> None:
        self._codes: dict[tuple[type, Any], float] = {}
        self.axes: tuple[str, ...] = ("differs",)
        numbers = sorted(value for kind, value in values if kind in _NUMBERS and math.isfinite(value))
        numeric = len(numbers) == len(values)
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
            self._codes = {key: numbers.index(key[1]) / last for key in values}
        else:
            self._codes = {key: float(code) for code, key in enumerate(values)}
        self._code_of = {**self._codes, (type(_ABSENT), _ABSENT): math.nan}

    def _scaled(self, value: float) -> float:
        return math.log(value) if self._log else float(value)

    def codes_of(self, values: Sequence[Any]) -> list[float] | NDArray[np.float64]:
        """Returns the numbers of values, NaN for `_ABSENT`."""
        kinds = list(map(type, values))
        if self._codes:  # a value not in `candidates` differs from all
            return list(map(self._code_of.get, zip(kinds, values, strict=True), repeat(-1.0)))
        if _NUMBERS.issuperset(kinds):
            numbers = np.array(values, np.float64)
            if not self._log or numbers.min(initial=1.0) > 0:
                scaled = np.log(numbers) if self._log else numbers
                return np.asarray((scaled - self._low) / self._span)
        return [math.nan if value is _ABSENT else self._place(value) for value in values]

    def _place(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or (self._log and value <= 0):
            return -1.0
        return (self._scaled(value) - self._low) / self._span

    @property
    def codes(self) -> tuple[float, ...]:
        """The values' numbers where they may act like categories; empty for others."""
        return tuple(sorted(set(self._codes.values())))


def _group(columns: tuple[int, ...], one: _Column) -> Group:
    """Returns a group of like knobs, given the column of one of them."""
    return Group(columns, one.codes, "distance" in one.axes)
