"""Makes results of different models comparable: relative to the float model.

Raw values are a poor target for learning from other models (a tree spends its splits on which model it is and on
configurations that collapse to chance), so each model's own scale is taken out before anything is learned.
"""

from collections.abc import Sequence

from evaluators.base import Measurement
from evaluators.column import Column

_POINTS = ("%", "dB", "")  # units of which differences are compared; of amounts (bytes, ms) it is ratios
_AMOUNTS = ("_bytes", "_ms", "_us", "_s", "_uj", "_mj", "_mw", "_macs")


def is_amount(column: str, unit: str | None) -> bool:
    """Whether a column holds amounts, which are compared as ratios, rather than points of a score."""
    if unit is not None:
        return unit not in _POINTS
    return Column.parse(column).is_cost or column.endswith(_AMOUNTS)


def relative(column: str, unit: str | None, value: float, baseline: float) -> float:
    """Returns a value relative to the float model's.

    Returns:
        `value - baseline` in the column's unit for a score (0 is as good, below 0 lower); `value / baseline` for an
        amount (1 is the same); NaN where that is undefined.
    """
    if not is_amount(column, unit):
        return value - baseline
    return value / baseline if baseline > 0 else float("nan")


def unit_of(column: str, baseline: Sequence[Measurement]) -> str | None:
    """Returns the unit of a column, None if the baseline lacks it."""
    return next((m.unit for m in baseline if m.column == column), None)
