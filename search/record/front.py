"""The Pareto front, and the choice of the model to ship."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluators.column import Column
from search.record.nondomination import non_dominated
from search.record.results import Constraint, DevicePick, Objective, TrialRecord

_TIE = 0.03  # relative difference below which two costs count as equal


def losses(record: TrialRecord, objectives: Sequence[Objective]) -> NDArray[np.float64] | None:
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


def picks(
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    devices: Sequence[str],
    baseline: Mapping[str, float],
) -> tuple[DevicePick, ...]:
    """Returns, per device with a cost among the objectives, the model to ship there.

    If a constraint bounds the main objective (or its drop), it is the cheapest feasible model. Otherwise it
    is the cheapest one whose main objective lies within the best model's paired confidence interval.

    Args:
        records: The trials on the front.
        objectives: The axes; the first one is the main objective.
        constraints: Limits that a feasible trial keeps.
        devices: Names of the devices.
        baseline: The uncompressed model's values by column.
    """
    device_picks = []
    for device in devices:
        axis = next(
            (o for o in objectives if Column.parse(o.column).device == device and o.direction == "minimize"),
            None,
        )
        if axis is None or not records:
            continue
        pool, why = _good_enough(records, objectives[0], constraints)
        chosen = _cheapest(pool, axis.column, objectives[0])
        cost = Column.parse(axis.column).name
        caveat = _caveat(chosen, axis.column, baseline)
        device_picks.append(
            DevicePick(device, chosen.number, f"lowest {cost} among the models {why}", caveat)
        )
    return tuple(device_picks)


def _caveat(chosen: TrialRecord, column: str, baseline: Mapping[str, float]) -> str:
    """Returns a sentence if the uncompressed model costs no more (within 3 %), else an empty text."""
    values, cost, before = chosen.values(), Column.parse(column), baseline.get(column)
    if cost.name == "latency_ms":
        # a measured latency is compared with the float model's that was timed alternately with it
        before = values.get(str(cost.named("latency_float_ms")), before)
    if before is None or values[column] < before * (1 - _TIE):
        return ""
    return f"No model of the front has a lower {cost.name} there than the uncompressed one."


def _cheapest(pool: Sequence[TrialRecord], column: str, main: Objective) -> TrialRecord:
    """Returns, of the records within 3 % (timing noise) of the lowest cost, the one best in `main`."""
    lowest = min(r.values()[column] for r in pool)
    near = [r for r in pool if r.values()[column] <= lowest + _TIE * abs(lowest)]
    return min(near, key=lambda r: (_main_loss(r, main), r.values()[column]))


def overall_best(
    records: Sequence[TrialRecord], objectives: Sequence[Objective], constraints: Sequence[Constraint],
    device_picks: Sequence[DevicePick],
) -> tuple[int | None, str]:  # fmt: skip
    """Returns the number of the one trial to ship (None if there is none), and the reason as text."""
    if not records:
        return None, "no trial met the constraints"
    if device_picks:
        first = device_picks[0]
        return first.number, f"the pick for {first.device}: {first.why}"
    if len(objectives) == 1:
        best = min(records, key=lambda r: _main_loss(r, objectives[0]))
        return best.number, f"the best {objectives[0].column}"
    pool, why = _good_enough(records, objectives[0], constraints)
    second = objectives[1]
    if second.direction == "minimize":
        best = _cheapest(pool, second.column, objectives[0])
    else:
        best = max(pool, key=lambda r: r.values()[second.column])
    extreme = "lowest" if second.direction == "minimize" else "highest"
    return best.number, f"{extreme} {second.column} among the models {why}"


def _main_loss(record: TrialRecord, main: Objective) -> float:
    value = record.values()[main.column]
    return -value if main.direction == "maximize" else value


def _good_enough(
    records: Sequence[TrialRecord], main: Objective, constraints: Sequence[Constraint]
) -> tuple[list[TrialRecord], str]:
    """Returns the records with an acceptable main objective (see `picks`), and a clause describing them."""
    if any(c.column in (main.column, f"{main.column}_drop") for c in constraints):
        return list(records), "that meet every constraint"
    best = min(records, key=lambda r: _main_loss(r, main))
    values = best.values()
    drop = values.get(f"{main.column}_drop")
    high = values.get(f"{main.column}_drop_high")
    margin = high - drop if drop is not None and high is not None else 0.0
    pool = [r for r in records if _main_loss(r, main) <= _main_loss(best, main) + margin]
    name = Column.parse(main.column).short
    return pool, f"whose {name} is within noise of the best one's (within {margin:.2f})"
