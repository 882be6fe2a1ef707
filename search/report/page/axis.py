"""Scales of charts: where a value is drawn, and which values are written beside the axis."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_LOG_STEPS = (1.0, 2.0, 5.0)
_PADDING = 0.07  # of the range, beyond its outermost values
_WIDE = 30.0  # ratio of the largest to the smallest value above which an axis is logarithmic


@dataclass(frozen=True)
class Scale:
    """Maps values to coordinates.

    Attributes:
        low: Value at `start`.
        high: Value at `end`.
        start: Coordinate.
        end: Coordinate.
        is_log: Whether equal ratios are equally far apart; then `low` is above 0.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """Returns a value's coordinate; of one beyond an end that of the end."""
        low, high, value = (self._place(v) for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * min(max((value - low) / (high - low), 0.0), 1.0)

    def holds(self, value: float) -> bool:
        """Returns whether a value lies within the scale."""
        return self.low <= value <= self.high

    def ticks(self, most: int = 6, *, are_whole: bool = False) -> list[tuple[float, str]]:
        """Returns values to write beside the axis, and their texts, at most about `most` of them.

        Args:
            most: How many.
            are_whole: Whether only whole numbers are written, for counts.
        """
        values = self._log_ticks(most) if self.is_log else _linear_ticks(self.low, self.high, most, are_whole)
        return [(v, t) for v, t in zip(values, _texts(values), strict=True) if self.holds(v)]

    def _place(self, value: float) -> float:
        return math.log10(max(value, self.low)) if self.is_log else value

    def _log_ticks(self, most: int) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        steps = _LOG_STEPS if len(_LOG_STEPS) * (last - first) <= 1.5 * most else (1.0,)
        exponents = range(first, last + 1, max(1, (last - first) // most))
        return [step * 10.0**e for e in exponents for step in steps]


def scale(
    values: Iterable[float], start: float, end: float, *, near: Sequence[float] = (), from_zero: bool = False
) -> Scale:
    """Returns a scale around values, logarithmic where they span more than a factor of 30.

    Args:
        values: What is drawn.
        start: Coordinate of the low end.
        end: Coordinate of the high end.
        near: Further values, e.g. limits, that are drawn if they are not far from the others.
        from_zero: Whether the scale begins at 0 rather than near the lowest value.
    """
    drawn = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    if from_zero:
        return Scale(0.0, max(drawn) * (1 + _PADDING) or 1.0, start, end)
    low, high = min(drawn), max(drawn)
    if low > 0 and high / low > _WIDE:
        return Scale(low / 1.3, high * 1.3, start, end, is_log=True)
    reach = (high - low) or abs(high) * 0.05 or 1.0
    drawn += [v for v in near if low - 1.5 * reach <= v <= high + 1.5 * reach]
    low, high = min(drawn), max(drawn)
    padding = _PADDING * ((high - low) or 2 * reach)
    bottom = 0.0 if 0 <= low < padding else low - padding
    return Scale(bottom, high + padding, start, end)


def _linear_ticks(low: float, high: float, most: int, are_whole: bool) -> list[float]:
    rough = max((high - low) / most, 1.0 if are_whole else 0.0)
    power = 10.0 ** math.floor(math.log10(rough))
    steps = [s * power for s in _STEPS if not are_whole or s * power == int(s * power)]
    step = next(s for s in steps if s >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, first + most + 2) if step * i <= high + 1e-9 * step]


def _texts(values: Sequence[float]) -> list[str]:
    """Returns the values as texts with the same, and only the needed, decimals."""
    needed = [next((d for d in range(13) if math.isclose(round(v, d), v, rel_tol=1e-9)), 12) for v in values]
    together = values and max(map(abs, values)) < 1e3 * min((abs(v) for v in values if v), default=1.0)
    decimals = [max(needed)] * len(values) if together else needed
    return [f"{v:,.{d}f}".replace("-", "−") for v, d in zip(values, decimals, strict=True)]
