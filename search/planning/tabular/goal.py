"""What a search of a table is to find: the best row, or with several objectives the front of all rows."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from search.knowledge.table import TableRow
from search.planning.tabular.problem import TabularProblem, measurement_of
from search.record.front import losses
from search.record.hypervolume import hypervolume
from search.record.nondomination import non_dominated
from search.record.results import Constraint, Objective, StudyRecord, TrialRecord
from search.samplers.acquisition.improvement import oriented, reference_point
from search.study.verdict import verdict
from search.trials.trial import TrialResult
from spaces.candidate import Candidate
from spaces.errors import ConfigError, InputError

GAPS = {"trials_to_best": 0.0, "trials_to_0.1": 0.1, "trials_to_0.5": 0.5}  # points from the best row
SHARES = {"trials_to_90%": 0.90, "trials_to_95%": 0.95, "trials_to_99%": 0.99}  # of the front's hypervolume
_ROUNDING = 1e-9  # a share that is short by less is reached


class FrontShare:
    """The share of the hypervolume of a table's front that trials have found: 1 is the whole front.

    The reference point lies a tenth of the front's range beyond its worst end on every axis.

    Args:
        values: `(n, n_objectives)`, of the feasible rows, not negated.
        objectives: The axes.
    """

    defined = True

    def __init__(self, values: NDArray[np.float64], objectives: Sequence[Objective]) -> None:
        gains = oriented(values, [o.direction for o in objectives])
        gains = gains[non_dominated(gains)]
        self._objectives, self._reference = objectives, -reference_point(gains)
        self._whole = hypervolume(-gains, self._reference)

    def of(self, records: Sequence[TrialRecord]) -> float:
        """Returns the share of feasible records; those that lack an objective are left out."""
        found = [loss for record in records if (loss := losses(record, self._objectives)) is not None]
        return hypervolume(np.array(found), self._reference) / self._whole if found else 0.0


class TableGoal:
    """The objectives and constraints of a study on a table, and how far its trials are from the best.

    A row that lacks the value of an objective or of a limit is a candidate whose trial fails, as its measurement did.

    Args:
        problem: The task.
        objectives: One or more.
        constraints: Limits that a row must keep.
        share: The share of the front's hypervolume that is enough, where there are several objectives.

    Attributes:
        n_failed: Number of rows that lack such a value.

    Raises:
        InputError: Every row lacks such a value.
        ConfigError: No row keeps all limits.
    """

    def __init__(
        self,
        problem: TabularProblem,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint] = (),
        share: float = 1.0,
    ) -> None:
        self._problem, self.objectives, self.constraints = problem, tuple(objectives), tuple(constraints)
        self._share = share
        judged = [(row, self._judged(row)) for row in problem.rows]
        self.n_failed = sum(record.state == "failed" for _, record in judged)
        self._feasible = np.array(
            [[r.values()[o.column] for o in objectives] for _, r in judged if r.state == "complete"]
        )  # (n_feasible, n_objectives)
        if self.n_failed == len(judged):
            wanted = [*(o.column for o in objectives), *(c.column for c in constraints)]
            raise InputError(
                f"{problem.table.path}: no row of task {problem.task!r} has a value for each of "
                f"{', '.join(dict.fromkeys(wanted))}; fill them, or choose other columns "
                "(tabular.metric, objective.*)"
            )
        if not len(self._feasible):
            raise ConfigError(self._impossible([(row, r) for row, r in judged if r.state == "infeasible"]))
        self.volume = FrontShare(self._feasible, self.objectives) if len(self.objectives) > 1 else None

    @property
    def best_value(self) -> float:
        """The first objective of the best feasible row."""
        values = self._feasible[:, 0]
        return float(values.max() if self.objectives[0].direction == "maximize" else values.min())

    def progress(self, results: StudyRecord) -> dict[str, int | None]:
        """Returns after how many trials each target was reached, from 1; None if it was not.

        With one objective these are the keys of `GAPS`, else those of `SHARES`.
        """
        if self.volume is not None:
            return {
                target: _first(volume >= share - _ROUNDING for volume in results.hypervolumes)
                for target, share in SHARES.items()
            }
        column = self.objectives[0].column
        return self.progress_of(
            [t.values().get(column) if t.state == "complete" else None for t in results.trials]
        )

    def progress_of(self, values_in_order: Sequence[float | None]) -> dict[str, int | None]:
        """Returns after how many trials the best row was found, or one within 0.1 and 0.5 points of it.

        Args:
            values_in_order: The first objective of each trial, in the order of the trials; None for one that
                failed or was infeasible.

        Returns:
            `trials_to_best`, `trials_to_0.1`, `trials_to_0.5`: from 1; None if never. A tie with the best row counts.
        """
        gaps = [math.inf if v is None or math.isnan(v) else abs(self.best_value - v) for v in values_in_order]
        return {
            target: _first(gap <= allowed + _ROUNDING for gap in gaps) for target, allowed in GAPS.items()
        }

    def reached(self, results: StudyRecord) -> bool:
        """Returns whether the best row, or the wanted share of the front's hypervolume, was found."""
        if self.volume is not None:
            return results.hypervolume is not None and results.hypervolume >= self._share - _ROUNDING
        return self.progress(results)["trials_to_best"] is not None

    # -- the rows ------------------------------------------------------------------------------------------

    def _judged(self, row: TableRow) -> TrialRecord:
        measurements = tuple(
            measurement_of(column, value) for column, value in self._problem.values(row).items()
        )
        result = TrialResult(0, Candidate(row.knobs), "measured", measurements=measurements)
        return verdict(result, 0, self.objectives, self.constraints)

    def _impossible(self, judged: Sequence[tuple[TableRow, TrialRecord]]) -> str:
        def excess(pair: tuple[TableRow, TrialRecord]) -> float:
            values = pair[1].values()
            return max(
                max(c.excess(values[c.column]), 0.0) / (abs(c.limit) or 1.0)
                for c in self.constraints
                if c.column in values
            )

        row, record = min(judged, key=excess)
        return (
            f"objective.constraints: none of the {len(self._problem.rows)} rows of task {self._problem.task!r} in "
            f"{self._problem.table.path} keeps all limits. Nearest is line {row.line} ({record.reason})"
        )


def _first(reached: Iterable[bool]) -> int | None:
    return next((n for n, is_reached in enumerate(reached, start=1) if is_reached), None)
