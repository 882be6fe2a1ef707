"""Columns of a table that are known of every row before it is measured: `tabular.known`."""

from collections.abc import Mapping, Sequence

import numpy as np

from search.planning.tabular.problem import TabularProblem
from search.record.results import Constraint, Objective
from search.samplers.candidates.context import Known, KnownOnly, Params


class KnownColumns(KnownOnly):
    """Tells a sampler the exact values of some columns, as counts of MACs and parameters are before a training.

    Args:
        problem: The task.
        objectives: Of the study.
        constraints: Of the study.
        columns: The columns that are known.
    """

    def __init__(
        self,
        problem: TabularProblem,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        columns: Sequence[str],
    ) -> None:
        self._problem, self._objectives = problem, objectives
        self._constraints = [c for c in constraints if c.column in columns]
        self._columns = set(columns)

    def known(self, candidates: Sequence[Params]) -> Known:
        """Returns the known columns; a candidate that is no row has the key "", as one that cannot be built."""
        rows = [self._problem.row(candidate) for candidate in candidates]
        values = [{} if row is None else self._problem.values(row) for row in rows]
        return Known(
            np.array([[self._value(v, o.column) for o in self._objectives] for v in values], np.float64),
            {
                c.name: np.array([c.excess(v.get(c.column, np.nan)) for v in values], np.float64)
                for c in self._constraints
            },
            ["" if row is None else str(row.index) for row in rows],
        )

    def _value(self, values: Mapping[str, float], column: str) -> float:
        return values.get(column, np.nan) if column in self._columns else np.nan
