"""The Pareto front, and the models that may belong to it once their costs are timed more carefully."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluators.column import Column
from evaluators.cost.latency.order import TIE
from search.record.nondomination import non_dominated
from search.record.results import Constraint, Objective, TrialRecord

Floats = NDArray[np.float64]
TIMED = "latency_ms"
"""The cost that is timed where a device is this machine."""


TIMES = "timed_ms"
"""Key of a record's details: the times by round of a model that was timed again, see `search.study.race`."""


def losses(record: TrialRecord, objectives: Sequence[Objective]) -> Floats | None:
    """Returns the objectives as numbers to minimise `(n_objectives,)`, or None if one is absent or not finite."""
    values = record.values()
    signed = [values.get(o.column, np.nan) * (-1.0 if o.direction == "maximize" else 1.0) for o in objectives]
    return np.array(signed) if np.isfinite(signed).all() else None


def pareto_front(trials: Sequence[TrialRecord], objectives: Sequence[Objective]) -> tuple[int, ...]:
    """Returns the numbers of the feasible, non-dominated trials, the best by the first objective first.

    Of trials with equal values only the earliest is kept.
    """
    feasible = [
        (tuple(loss), t.number)
        for t in trials
        if t.state == "complete" and (loss := losses(t, objectives)) is not None
    ]
    feasible.sort()
    kept = non_dominated(-np.array([loss for loss, _ in feasible]).reshape(len(feasible), len(objectives)))
    return tuple(number for (_, number), on_front in zip(feasible, kept, strict=True) if on_front)


def feasible_baseline(
    record: TrialRecord, objectives: Sequence[Objective], constraints: Sequence[Constraint]
) -> TrialRecord | None:
    """Returns the uncompressed model as a candidate; None if it lacks an objective, or breaks a constraint.

    It has not dropped from itself, whatever the interval of that drop is.
    """
    values, main = record.values(), f"{objectives[0].column}_drop"
    limits = [c for c in constraints if not c.column.startswith(main)]
    kept = all(c.column in values and c.excess(values[c.column]) <= 0 for c in limits)
    return record if kept and losses(record, objectives) is not None else None


def broken_by_baseline(record: TrialRecord, constraints: Sequence[Constraint]) -> list[str]:
    """Returns the names of the constraints that the uncompressed model breaks."""
    values = record.values()
    return [c.name for c in constraints if c.column in values and c.excess(values[c.column]) > 0]


def possible_front(
    trials: Sequence[TrialRecord], objectives: Sequence[Objective], constraints: Sequence[Constraint] = ()
) -> tuple[int, ...]:
    """Returns the numbers of the trials that may be on the front, as far as their timings tell.

    Those of which no feasible trial is surely better: as good in every objective and better in one, even if a timed cost of the
    other is at the upper end of its interval and the own at the lower end. A first timing may have been made at a bad
    moment, see `_timed_bounds`; also a trial that breaks nothing but limits on timed costs is one of them, if it keeps
    these at the lower ends. Where nothing is timed it is the front.

    Args:
        trials: Trials; the models that were timed again have `details[TIMES]`.
        objectives: The axes.
        constraints: Limits that a feasible trial keeps.
    """
    if not any(is_timed(trials, column) for column in _columns(objectives, constraints)):
        return pareto_front(trials, objectives)
    fastest_float = _fastest_float(trials)
    possible = [
        t
        for t in trials
        if losses(t, objectives) is not None
        and (t.state == "complete" or _may_be_feasible(t, constraints, fastest_float))
    ]
    ends = [_ends(t, objectives, fastest_float) for t in possible]
    best = np.array([end[0] for end in ends])
    worst = np.array([end[1] for t, end in zip(possible, ends, strict=True) if t.state == "complete"])
    worst = worst.reshape(-1, len(objectives))
    surely_worse = (bool(((worst <= own).all(axis=1) & (worst < own).any(axis=1)).any()) for own in best)
    return tuple(t.number for t, worse in zip(possible, surely_worse, strict=True) if not worse)


def _columns(objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> list[str]:
    return [*(o.column for o in objectives), *(c.column for c in constraints)]


def _may_be_feasible(
    record: TrialRecord, constraints: Sequence[Constraint], fastest_float: Mapping[str, float]
) -> bool:
    values = record.values()
    if record.state != "infeasible" or any(c.column not in values for c in constraints):
        return False
    broken = [c for c in constraints if c.excess(values[c.column]) > 0]
    return all(
        c.kind == "max"
        and is_timed([record], c.column)
        and c.excess(_timed_bounds(record, c.column, fastest_float)[0]) <= 0
        for c in broken
    )


def is_timed(trials: Sequence[TrialRecord], column: str) -> bool:
    """Whether a column is a latency that was measured."""
    return any(
        m.column == column and m.source == "measured" and m.name == TIMED
        for t in trials
        for m in t.measurements
    )


def _ends(
    record: TrialRecord, objectives: Sequence[Objective], fastest_float: Mapping[str, float]
) -> tuple[Floats, Floats]:
    """Returns the losses with every timed cost at the better, and at the worse end of its interval, `(n_objectives,)` each."""
    known = losses(record, objectives)
    assert known is not None  # the caller has left out the others
    at_best, at_worst = known, known.copy()
    for i, objective in enumerate(objectives):
        if objective.direction == "minimize" and is_timed([record], objective.column):
            at_best[i], at_worst[i] = _timed_bounds(record, objective.column, fastest_float)
    return at_best, at_worst


def _timed_bounds(
    record: TrialRecord, column: str, fastest_float: Mapping[str, float]
) -> tuple[float, float]:
    """Returns what a timed cost may be at best and at worst, ties included.

    What was timed again has its interval, widened by the tie of 3 %. A first timing lasted a fraction of a second: it is also
    scaled by how slow the float model, timed in turns with it, was beside its fastest timing of the study, and
    its better end is at most its lower quartile of single runs (median less interquartile range at most).
    """
    values, parsed = record.values(), Column.parse(column)
    value = values[column]
    low, high = values.get(f"{column}_low", value), values.get(f"{column}_high", value)
    if TIMES not in record.details:
        low = min(low, value - values.get(str(parsed.named("latency_iqr_ms")), 0.0))
        of_float = values.get(str(parsed.named("latency_float_ms")))
        if of_float and column in fastest_float:
            low *= fastest_float[column] / of_float
    return max(low, 0.0) / (1 + TIE), high * (1 + TIE)


def _fastest_float(trials: Sequence[TrialRecord]) -> dict[str, float]:
    """Returns the float model's fastest timing of the study, by the column of the latency."""
    fastest: dict[str, float] = {}
    for trial in trials:
        for column, value in trial.values().items():
            parsed = Column.parse(column)
            if parsed.name == "latency_float_ms":
                of = str(parsed.named(TIMED))
                fastest[of] = min(value, fastest.get(of, value))
    return fastest
