"""The metric value that a candidate has to reach for its trial to matter, computed before the trial."""

import math
from collections.abc import Sequence

import optuna

from evaluators.base import EarlyStoppingThreshold
from evaluators.column import Column
from search.record.results import RELATIVE_TOLERANCE, Objective, TrialRecord
from search.samplers.brute_force import BruteForceSampler
from search.samplers.candidates.context import Params
from search.study.plan import StudyPlan

# samplers that enumerate the space: they are chosen to get every value, so that no trial is stopped early
_EXHAUSTIVE = (BruteForceSampler, optuna.samplers.BruteForceSampler, optuna.samplers.GridSampler)


class EarlyStoppingThresholds:
    """Computes the metric value that a candidate has to reach, or its trial can be stopped early.

    A candidate cannot join the front if a trial has a better metric and is at least as good in all other
    objectives, or if the candidate breaks a constraint on the metric or on its drop. The first can be decided
    before the trial only if all other objectives are known exactly (modelled costs); if one of them has to be
    measured, only the constraints count.

    Args:
        plan: The study's plan.
        sampler: The study's sampler. With one that enumerates the space no trial is stopped early.
    """

    def __init__(self, plan: StudyPlan, sampler: optuna.samplers.BaseSampler) -> None:
        self._plan = plan
        self._enabled = plan.early_metric is not None and not isinstance(sampler, _EXHAUSTIVE)
        self._metric, self._drop = (str(Column.of(f"{plan.early_metric}{end}")) for end in ("", "_drop"))
        self._sign = 1.0 if plan.early_direction == "maximize" else -1.0
        self._floor = self._from_constraints()
        self._others = [
            (position, objective)
            for position, objective in enumerate(plan.objectives)
            if not self._is_metric(objective)
        ]
        self._has_axis = len(self._others) < len(plan.objectives)

    def of(self, params: Params, records: Sequence[TrialRecord]) -> EarlyStoppingThreshold | None:
        """Returns the strictest threshold that a trial or a constraint sets for a candidate; None if none does.

        Args:
            params: The candidate, as Optuna's parameters.
            records: All trials so far.
        """
        if not self._enabled:
            return None
        thresholds = [t for t in (self._floor, self._from_trials(params, records)) if t is not None]
        return max(thresholds, key=self._strictness, default=None)

    def _strictness(self, threshold: EarlyStoppingThreshold) -> float:
        return self._sign * threshold.least

    def _from_constraints(self) -> EarlyStoppingThreshold | None:
        base = next((m.value for m in self._plan.baseline if m.column == self._metric), math.nan)
        floors = [
            EarlyStoppingThreshold(floor, constraint.demand)
            for constraint in self._plan.constraints
            for column, kind, floor in (
                (self._metric, "min" if self._sign > 0 else "max", constraint.bound),
                (self._drop, "max", base - self._sign * constraint.bound),
            )
            if (constraint.column, constraint.kind) == (column, kind) and math.isfinite(floor)
        ]
        if not floors:
            return None
        strictest = max(floors, key=self._strictness)
        slack = RELATIVE_TOLERANCE * max(1.0, abs(strictest.least))
        return EarlyStoppingThreshold(strictest.least - self._sign * slack, strictest.why)

    def _from_trials(self, params: Params, records: Sequence[TrialRecord]) -> EarlyStoppingThreshold | None:
        if not self._has_axis:
            return None
        others = self._other_objectives(params)
        if others is None:
            return None
        rivals = [
            (value, record.number)
            for record in records
            if record.state == "complete" and (value := self._metric_if_as_good(record, others)) is not None
        ]
        if not rivals:
            return None
        value, number = max(rivals, key=lambda rival: (self._sign * rival[0], -rival[1]))
        also = " and is at least as good in all other objectives" if others else ""
        return EarlyStoppingThreshold(value, f"trial {number} reaches it{also}")

    def _other_objectives(self, params: Params) -> dict[Objective, float] | None:
        """Returns the exact values of all objectives but the metric; None if one has to be measured."""
        if not self._others:
            return {}
        if self._plan.low_fidelity is None:
            return None
        known = self._plan.low_fidelity.known([params]).values[0]
        values = {objective: float(known[position]) for position, objective in self._others}
        return values if all(map(math.isfinite, values.values())) else None

    def _metric_if_as_good(self, record: TrialRecord, others: dict[Objective, float]) -> float | None:
        """Returns the trial's metric if the trial is at least as good in all other objectives, else None."""
        values = record.values()
        as_good = all(
            _no_worse(values.get(objective.column, math.nan), value, objective)
            for objective, value in others.items()
        )
        metric = values.get(self._metric, math.nan)
        return metric if as_good and math.isfinite(metric) else None

    def _is_metric(self, objective: Objective) -> bool:
        axis = (objective.column, objective.direction)
        return axis in ((self._metric, self._plan.early_direction), (self._drop, "minimize"))


def _no_worse(value: float, than: float, objective: Objective) -> bool:
    return value >= than if objective.direction == "maximize" else value <= than
