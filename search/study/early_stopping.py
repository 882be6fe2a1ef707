"""How good a candidate's metric has to be for its trial to matter, as far as that is certain before the trial."""

import math
from collections.abc import Sequence

import optuna

from evaluators.base import EarlyStoppingThreshold
from evaluators.column import Column
from search.record.results import RELATIVE_TOLERANCE, Objective, TrialRecord
from search.samplers.brute_force import BruteForceSampler
from search.samplers.candidates.context import Params
from search.study.plan import StudyPlan

# they are chosen to know every value, not to find the best one soon
_EXHAUSTIVE = (BruteForceSampler, optuna.samplers.BruteForceSampler, optuna.samplers.GridSampler)


class EarlyStoppingThresholds:
    """Knows what a candidate has to exceed to be of use.

    A candidate is of no use if a trial has a better metric and is at least as good in everything else, or if it breaks a
    constraint on the metric or on its drop. The former can be said beforehand only where everything else is certain (modelled
    costs); where something has yet to be measured, the constraints alone count.

    Args:
        plan: The study's plan.
        sampler: What proposes; a sampler that enumerates the space gets every candidate judged to the end.
    """

    def __init__(self, plan: StudyPlan, sampler: optuna.samplers.BaseSampler) -> None:
        self._plan = plan
        self._enabled = plan.early_metric is not None and not isinstance(sampler, _EXHAUSTIVE)
        self._metric, self._drop = (str(Column.of(f"{plan.early_metric}{end}")) for end in ("", "_drop"))
        self._floor = self._from_constraints()
        self._others = [
            (position, objective)
            for position, objective in enumerate(plan.objectives)
            if not self._is_metric(objective)
        ]
        self._has_axis = len(self._others) < len(plan.objectives)

    def of(self, params: Params, records: Sequence[TrialRecord]) -> EarlyStoppingThreshold | None:
        """Returns what the candidate has to exceed; None if nothing is known to ask for anything.

        Args:
            params: The candidate, as Optuna holds it.
            records: All trials.
        """
        if not self._enabled:
            return None
        asked = [n for n in (self._floor, self._from_trials(params, records)) if n is not None]
        return max(asked, key=lambda threshold: threshold.least, default=None)

    def _from_constraints(self) -> EarlyStoppingThreshold | None:
        base = next((m.value for m in self._plan.baseline if m.column == self._metric), math.nan)
        floors = [
            EarlyStoppingThreshold(floor, f"the constraint {constraint.name} asks for that much")
            for constraint in self._plan.constraints
            for column, kind, floor in (
                (self._metric, "min", constraint.bound),
                (self._drop, "max", base - constraint.bound),
            )
            if (constraint.column, constraint.kind) == (column, kind) and math.isfinite(floor)
        ]
        if not floors:
            return None
        highest = max(floors, key=lambda threshold: threshold.least)
        return EarlyStoppingThreshold(
            highest.least - RELATIVE_TOLERANCE * max(1.0, abs(highest.least)), highest.why
        )

    def _from_trials(self, params: Params, records: Sequence[TrialRecord]) -> EarlyStoppingThreshold | None:
        if not self._has_axis:
            return None
        certain = self._certain(params)
        if certain is None:
            return None
        rivals = [
            (value, record.number)
            for record in records
            if record.state == "complete" and (value := self._if_as_good(record, certain)) is not None
        ]
        if not rivals:
            return None
        value, number = max(rivals, key=lambda rival: (rival[0], -rival[1]))
        return EarlyStoppingThreshold(
            value, f"trial {number} is {'as good in everything else' if certain else 'that good'}"
        )

    def _certain(self, params: Params) -> dict[Objective, float] | None:
        """Returns the candidate's values on all other axes; None if one has yet to be measured."""
        if not self._others:
            return {}
        if self._plan.low_fidelity is None:
            return None
        known = self._plan.low_fidelity.known([params]).values[0]
        values = {objective: float(known[position]) for position, objective in self._others}
        return values if all(map(math.isfinite, values.values())) else None

    def _if_as_good(self, record: TrialRecord, certain: dict[Objective, float]) -> float | None:
        """Returns the trial's metric if it is at least as good as the candidate everywhere else."""
        values = record.values()
        as_good = all(
            _no_worse(values.get(objective.column, math.nan), value, objective)
            for objective, value in certain.items()
        )
        metric = values.get(self._metric, math.nan)
        return metric if as_good and math.isfinite(metric) else None

    def _is_metric(self, objective: Objective) -> bool:
        axis = (objective.column, objective.direction)
        return axis in ((self._metric, "maximize"), (self._drop, "minimize"))


def _no_worse(value: float, than: float, objective: Objective) -> bool:
    return value >= than if objective.direction == "maximize" else value <= than
