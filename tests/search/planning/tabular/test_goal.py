"""What a search of a table is to find, and how far trials are from it."""

from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.base import Measurement
from search.planning.tabular.goal import SHARES, FrontShare, TableGoal
from search.planning.tabular.problem import TabularProblem
from search.record.results import Constraint, Objective, TrialRecord
from search.samplers.candidates.context import SamplerContext
from search.samplers.quantune import QuantuneSampler
from spaces.candidate import Candidate
from spaces.errors import ConfigError, InputError

TABLES = Path(__file__).parents[4].parent / "shared" / "data" / "tables"
TEXT = """task,knob.bits,knob.scheme,metric.top1,metric.ms
a,8,kl,70,3
a,4,max,71.05,2
a,4,kl,70.62,1
a,2,kl,10,1
b,8,kl,60,
b,8,max,61,9
"""
TOP1, FAST = Objective("metric.top1", "maximize"), Objective("metric.ms", "minimize")


@pytest.fixture
def path(tmp_path):
    (tmp_path / "t.csv").write_text(TEXT)
    return tmp_path / "t.csv"


def record(number, top1, ms, state="complete"):
    measurements = (Measurement("top1", top1, "", "measured"), Measurement("ms", ms, "", "measured"))
    return TrialRecord(number, state, "", Candidate({}), measurements)


class Results:
    """As much of a `StudyRecord` as a goal reads."""

    def __init__(self, goal, *trials):
        self.trials = trials
        self.hypervolumes = ()
        if goal.volume is not None:
            feasible = [[t for t in trials[:n] if t.state == "complete"] for n in range(1, len(trials) + 1)]
            self.hypervolumes = tuple(goal.volume.of(some) for some in feasible)
        self.hypervolume = self.hypervolumes[-1] if self.hypervolumes else None


def test_progress_with_one_objective(path):
    goal = TableGoal(TabularProblem(path, "a"), [TOP1])
    assert goal.best_value == 71.05
    assert goal.volume is None
    assert goal.progress_of([10.0, None, 70.62, 71.05]) == {
        "trials_to_best": 4,
        "trials_to_0.1": 4,
        "trials_to_0.5": 3,
    }
    assert goal.progress_of([70.95]) == {"trials_to_best": None, "trials_to_0.1": 1, "trials_to_0.5": 1}
    assert set(goal.progress_of([]).values()) == {None}
    fast = TableGoal(TabularProblem(path, "a"), [FAST])
    assert fast.progress_of([3.0, 1.5, 1.0])["trials_to_0.5"] == 2
    assert fast.progress_of([3.0, 1.5, 1.0])["trials_to_best"] == 3


def test_the_best_row_keeps_the_limits(path):
    goal = TableGoal(TabularProblem(path, "a"), [TOP1], [Constraint("ms", "metric.ms", "max", 1.0)])
    assert goal.best_value == 70.62
    too_slow, best = record(0, 71.05, 2, "infeasible"), record(1, 70.62, 1)
    assert goal.progress(Results(goal, too_slow, best))["trials_to_best"] == 2
    assert not goal.reached(Results(goal, too_slow))
    assert goal.reached(Results(goal, too_slow, best))


def test_progress_with_several_objectives(path):
    goal = TableGoal(TabularProblem(path, "a"), [TOP1, FAST], share=0.5)
    # the front is (71.05, 2) and (70.62, 1); the reference point (70.577, 2.1)
    whole = (71.05 - 70.577) * 0.1 + (70.62 - 70.577) * 1.0
    first = record(0, 71.05, 2)
    assert goal.volume.of([first]) == pytest.approx((71.05 - 70.577) * 0.1 / whole)
    results = Results(goal, first, record(1, 10, 1), record(2, 70.62, 1))
    assert goal.progress(results) == dict.fromkeys(SHARES, 3)
    assert goal.reached(Results(goal, first))
    strict = TableGoal(TabularProblem(path, "a"), [TOP1, FAST])
    assert not strict.reached(Results(strict, first))
    assert strict.reached(results)
    assert not strict.reached(Results(strict))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_the_whole_table_has_all_of_the_front(rows):
    axes = [TOP1, FAST]
    share = FrontShare(np.array(rows, float), axes)
    records = [record(n, *row) for n, row in enumerate(rows)]
    assert share.of(records) == pytest.approx(1.0)
    found = [share.of(records[:n]) for n in range(len(rows) + 1)]
    assert found[0] == 0.0
    assert (np.diff(found) >= -1e-12).all()


def test_a_row_that_lacks_a_value_is_no_aim(path):
    path.write_text(path.read_text() + "b,4,kl,99,\nb,4,max,,1\n")
    problem = TabularProblem(path, "b")
    alone, both = TableGoal(problem, [TOP1]), TableGoal(problem, [TOP1, FAST])
    assert [(goal.best_value, goal.n_failed) for goal in (alone, both)] == [(99, 1), (61, 3)]
    limit = Constraint("fast", "metric.ms", "max", 4.0)
    with pytest.raises(
        ConfigError, match=r"none of the 4 rows .* Nearest is line 7 \(fast: ms is 9, 5 above"
    ):
        TableGoal(problem, [TOP1], [limit])


def test_a_task_whose_rows_all_lack_a_value_is_refused(path):
    path.write_text(TEXT + "c,8,kl,60,\nc,8,max,,9\n")
    with pytest.raises(
        InputError, match=r"no row of task 'c' has a value for each of metric.top1, metric.ms;"
    ):
        TableGoal(TabularProblem(path, "c"), [TOP1, FAST])


def test_impossible_limits_are_reported_with_the_nearest_row(path):
    limits = [Constraint("ms", "metric.ms", "max", 0.5), Constraint("good", "metric.top1", "min", 70.0)]
    with pytest.raises(
        ConfigError, match=r"none of the 4 rows of task 'a' .*Nearest is line 4 \(ms: ms is 1, 0.5 above"
    ):
        TableGoal(TabularProblem(path, "a"), [TOP1], limits)


def test_quantune_with_transfer_on_its_own_table():
    if not TABLES.exists():
        pytest.skip("the tables are absent")
    problem = TabularProblem(TABLES / "quantune_six_cnns.csv", "MobileNet")
    goal, knowledge = TableGoal(problem, [TOP1]), problem.knowledge("metric.top1")
    assert (len(problem.rows), len(knowledge)) == (48, 384 - 48)
    sampler = QuantuneSampler(transfer=True, seed=0)
    sampler.bind(SamplerContext(problem.candidates, knowledge, problem.descriptors, ("maximize",)))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    values = []
    for _ in range(12):
        trial = study.ask()
        params = {n: trial.suggest_categorical(n, d["choices"]) for n, d in problem.space_config().items()}
        values.append(problem.values(problem.row(params))["metric.top1"])
        study.tell(trial, values[-1])
    # the authors' own order measured the best of this network second
    assert goal.progress_of(values)["trials_to_best"] <= 12
