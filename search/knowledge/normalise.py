"""Makes results of different models comparable: relative to the float model, with collapses clipped, and as ranks.

Raw values are a poor target for learning from other models (a tree spends its splits on which model it is and on
configurations that collapse to chance), so each model's own scale is taken out before anything is learned.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evaluators.base import Measurement
from search.samplers.context import KnowledgeRow

_POINTS = ("%", "dB", "")  # units of which differences are compared; of amounts (bytes, ms) it is ratios
_AMOUNTS = ("_bytes", "_ms", "_us", "_s", "_uj", "_mj", "_mw", "_macs")


def is_amount(column: str, unit: str | None) -> bool:
    """Whether a column holds amounts, which are compared as ratios, rather than points of a score."""
    if unit is not None:
        return unit not in _POINTS
    return column.startswith("cost.") or column.endswith(_AMOUNTS)


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


def gaps(rows: Sequence[KnowledgeRow], maximize: bool) -> NDArray[np.float64]:
    """Returns `(n,)` how far each row of one task is below the float model, clipped where it has collapsed.

    In units of the task's own scale: 0 is the float model (or, where that is unknown, the task's best row), 1 the task's
    median row or worse. Being better than the float model counts as 0.

    Args:
        rows: Rows of one task.
        maximize: Whether higher values are better.
    """
    values = np.array([row.value for row in rows], dtype=np.float64) * (1.0 if maximize else -1.0)
    known = [row.baseline for row in rows if row.baseline is not None]
    top = float(np.median(known)) * (1.0 if maximize else -1.0) if known else float(np.max(values))
    below = np.maximum(top - values, 0.0)
    scale = float(np.median(below))
    if scale <= 0:
        scale = float(np.max(below, initial=0.0))
    return np.minimum(below / scale, 1.0) if scale > 0 else below


def ranks(rows: Sequence[KnowledgeRow], maximize: bool) -> NDArray[np.float64]:
    """Returns `(n,)` ranks of one task's rows in [0, 1], 0 the best; ties share their mean rank."""
    values = np.array([row.value for row in rows], dtype=np.float64) * (-1.0 if maximize else 1.0)
    if len(values) < 2:
        return np.zeros(len(values))
    ordered = np.sort(values)
    first = np.searchsorted(ordered, values, side="left")
    last = np.searchsorted(ordered, values, side="right") - 1
    mean: NDArray[np.float64] = (first + last) / 2 / (len(values) - 1)
    return mean
