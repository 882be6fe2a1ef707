"""Columns that are known of every row before it is measured."""

import numpy as np

from search.planning.tabular.known import KnownColumns
from search.planning.tabular.problem import TabularProblem
from search.record.results import Constraint, Objective


def test_only_the_named_columns_are_known(tmp_path):
    (tmp_path / "t.csv").write_text(
        "task,knob.a,metric.top1,metric.macs,metric.params\nt,1,50,10,3\nt,2,60,20,5\n"
    )
    problem = TabularProblem(tmp_path / "t.csv")
    objectives = [Objective("metric.top1", "maximize"), Objective("metric.macs", "minimize")]
    limits = [
        Constraint("small", "metric.params", "max", 4.0),
        Constraint("good", "metric.top1", "min", 55.0),
    ]
    columns = KnownColumns(problem, objectives, limits, ["metric.macs", "metric.params"])
    known = columns.known([{"a": 2}, {"a": 7}, {"a": 1}])
    np.testing.assert_array_equal(known.values, [[np.nan, 20.0], [np.nan, np.nan], [np.nan, 10.0]])
    assert known.excesses.keys() == {"small"}
    np.testing.assert_array_equal(known.excesses["small"], [1.0, np.nan, -1.0])
    assert known.keys == ["1", "", "0"]  # 7 is no row: it cannot be built
    assert columns.statistics([{"a": 1}]) == {}
    assert columns.short({"a": 1}, 4) is None
