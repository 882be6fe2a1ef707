"""How large a difference between two trials has to be so that it is one: the noise of a column."""

from collections.abc import Sequence

import numpy as np

from evaluators.column import Column
from evaluators.cost.latency.order import TIE
from search.record.results import TrialRecord


def noise(trials: Sequence[TrialRecord], column: str) -> float:
    """Returns the difference that two values of a column must exceed, in its unit; 0 of what is exact.

    Of a metric it is the median half width of the paired intervals of `<column>_drop`, of a latency 3 % of the median (the tie),
    or half of the median width of its intervals if that is more.

    Args:
        trials: Trials; those without the column are left out.
        column: A column of trials.csv.
    """
    values = [t.values() for t in trials if column in t.values()]
    parsed = Column.parse(column)
    if not parsed.is_cost:
        stem = f"{column.removesuffix('_drop')}_drop"
        return _half_width([(v.get(f"{stem}_low"), v.get(f"{stem}_high")) for v in values])
    if parsed.name != "latency_ms" or not values:
        return 0.0
    tie = TIE * float(np.median([v[column] for v in values]))
    if any(m.column == column and m.source != "measured" for t in trials for m in t.measurements):
        return tie
    return max(tie, _half_width([(v.get(f"{column}_low"), v.get(f"{column}_high")) for v in values]))


def _half_width(ends: Sequence[tuple[float | None, float | None]]) -> float:
    widths = [high - low for low, high in ends if low is not None and high is not None]
    return float(np.median(widths)) / 2 if widths else 0.0


def is_above_noise(trials: Sequence[TrialRecord], column: str) -> bool:
    """Whether the values of a column differ by more than its noise: those of the middle 90 % of the trials."""
    values = [v for t in trials if np.isfinite(v := t.values().get(column, np.nan))]
    if len(values) < 2:
        return False
    low, high = np.percentile(values, [5, 95])
    return bool(high - low > noise(trials, column))
