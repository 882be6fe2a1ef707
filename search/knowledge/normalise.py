"""Makes results of different models comparable: relative to the float model.

Raw values are a poor target for learning from other models (a tree spends its splits on identifying the model
and on configurations that collapse to chance), so each model's own scale is removed before anything is
learned.
"""

from collections.abc import Sequence

from evaluators.base import Measurement
from evaluators.column import Column

_POINTS = (
    "%",
    "dB",
    "",
)  # units whose values are compared by difference; amounts (bytes, ms) are compared by ratio
_AMOUNTS = ("_bytes", "_ms", "_us", "_s", "_uj", "_mj", "_mw", "_macs")


def is_amount(column: str, unit: str | None) -> bool:
    """Returns whether a column holds amounts, which are compared by ratio, rather than scores."""
    if unit is not None:
        return unit not in _POINTS
    return Column.parse(column).is_cost or column.endswith(_AMOUNTS)


def relative(column: str, unit: str | None, value: float, baseline: float) -> float:
    """Returns a value relative to the float model's.

    Returns:
        `value - baseline` in the column's unit for a score; `value / baseline` for an amount, NaN if
        `baseline` is not positive.
    """
    if not is_amount(column, unit):
        return value - baseline
    return value / baseline if baseline > 0 else float("nan")


def unit_of(column: str, baseline: Sequence[Measurement]) -> str | None:
    """Returns the unit of a column, None if the baseline lacks it."""
    return next((m.unit for m in baseline if m.column == column), None)
