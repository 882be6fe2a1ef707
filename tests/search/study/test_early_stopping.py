import json
import math

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from evaluators.base import Measurement
from search.executors.processes import ProcessesExecutor
from search.record.results import Constraint, Objective, TrialRecord
from search.samplers.brute_force import BruteForceSampler
from search.samplers.candidates.context import Known
from search.study.early_stopping import EarlyStoppingThresholds
from search.study.study import run_study
from search.study.testing import OBJECTIVES, AnalyticRunner, SilentObserver, analytic_plan
from spaces.candidate import Candidate

QUALITY, SIZE = OBJECTIVES
NO_SAMPLER = optuna.samplers.RandomSampler(seed=0)


class KnownSize:
    """Low-fidelity evaluations that know the analytic problem's size, and nothing of its quality."""

    sizes = ()
    n_full = 100

    def __init__(self, knows=True):
        self.knows = knows
        self.seconds = {}

    def known(self, candidates):
        self.seconds["known"] = self.seconds.get("known", 0.0) + 0.001
        sizes = [p["x"] + 2.0 * p["y"] ** 2 if self.knows else math.nan for p in candidates]
        return Known(np.array([[math.nan, size] for size in sizes]), {}, [str(p) for p in candidates])


def trial(number, quality, size, state="complete"):
    measurements = (
        Measurement("quality", quality, "", "measured"),
        Measurement("size", size, "", "modelled", "board"),
    )
    return TrialRecord(number, state, "", Candidate({"x": 0}), measurements)


def thresholds(tmp_path, sampler=NO_SAMPLER, **changes):
    plan = analytic_plan(tmp_path, **{"early_metric": "quality", "low_fidelity": KnownSize(), **changes})
    return EarlyStoppingThresholds(plan, sampler)


X3Y0 = {"x": 3, "y": 0, "z": "a"}  # size 3


def test_the_threshold_is_the_best_metric_among_trials_that_are_as_small(tmp_path):
    records = [trial(0, 2.0, 2.0), trial(1, 2.5, 3.0), trial(2, 9.0, 4.0), trial(3, 8.0, 1.0, "infeasible")]
    found = thresholds(tmp_path).of(X3Y0, records)
    assert found.least == 2.5
    assert found.why == "trial 1 reaches it and is at least as good in all other objectives"


def test_there_is_no_threshold_where_no_trial_is_as_small(tmp_path):
    assert thresholds(tmp_path).of(X3Y0, [trial(0, 9.0, 4.0)]) is None
    assert thresholds(tmp_path).of(X3Y0, []) is None


def test_with_one_objective_the_threshold_is_the_best_trial(tmp_path):
    found = thresholds(tmp_path, objectives=(QUALITY,), low_fidelity=None).of(
        X3Y0, [trial(0, 2.0, 2.0), trial(1, 5.0, 9.0)]
    )
    assert (found.least, found.why) == (5.0, "trial 1 reaches it")


def test_constraints_on_the_metric_and_on_its_drop(tmp_path):
    rules = (
        Constraint("good", "metric.quality", "min", 2.0, margin=0.25),
        Constraint("small", "cost.board.size", "max", 9.0),
    )
    found = thresholds(tmp_path, constraints=rules).of(X3Y0, [trial(0, 1.0, 1.0)])
    assert found.least == pytest.approx(2.25)
    assert found.least < 2.25  # a metric equal to the bound is feasible
    assert found.why == "the constraint good requires it"
    drop = (Constraint("drop", "metric.quality_drop", "max", 1.0),)  # the baseline has 5
    found = thresholds(tmp_path, constraints=drop).of(X3Y0, [trial(0, 4.5, 1.0)])
    assert (found.least, found.why) == (
        4.5,
        "trial 0 reaches it and is at least as good in all other objectives",
    )
    assert thresholds(tmp_path, constraints=drop).of(X3Y0, [trial(0, 3.0, 1.0)]).least == pytest.approx(4.0)


def test_where_lower_is_better_the_threshold_is_the_lowest_that_is_reached(tmp_path):
    lower = {"early_direction": "minimize", "objectives": (Objective("metric.quality", "minimize"), SIZE)}
    records = [trial(0, 2.0, 4.0), trial(1, 2.5, 3.0), trial(2, 1.5, 2.0)]
    found = thresholds(tmp_path, **lower).of(X3Y0, records)
    assert (found.least, found.why) == (
        1.5,
        "trial 2 reaches it and is at least as good in all other objectives",
    )
    drop = (Constraint("drop", "metric.quality_drop", "max", 1.0),)  # the baseline has 5
    found = thresholds(tmp_path, constraints=drop, **lower).of(X3Y0, [trial(0, 7.0, 1.0)])
    assert found.least == pytest.approx(6.0)
    assert found.least > 6.0
    rules = (Constraint("good", "metric.quality", "max", 4.0), Constraint("no", "metric.quality", "min", 1.0))
    assert thresholds(tmp_path, constraints=rules, **lower).of(X3Y0, []).least == pytest.approx(4.0)


def test_with_a_cost_that_has_to_be_measured_only_constraints_count(tmp_path):
    records = [trial(0, 9.0, 0.0)]
    for low_fidelity in (None, KnownSize(knows=False)):
        assert thresholds(tmp_path, low_fidelity=low_fidelity).of(X3Y0, records) is None
        rules = (Constraint("good", "metric.quality", "min", 2.0),)
        assert thresholds(tmp_path, low_fidelity=low_fidelity, constraints=rules).of(
            X3Y0, records
        ).least == pytest.approx(2.0)


def test_where_the_metric_is_no_objective_only_constraints_count(tmp_path):
    assert thresholds(tmp_path, objectives=(SIZE,)).of(X3Y0, [trial(0, 9.0, 0.0)]) is None


def test_an_objective_on_the_drop_counts_as_the_metric(tmp_path):
    objectives = (Objective("metric.quality_drop", "minimize"), SIZE)
    assert thresholds(tmp_path, objectives=objectives).of(X3Y0, [trial(0, 2.5, 3.0)]).least == 2.5


@pytest.mark.parametrize(
    "make",
    [BruteForceSampler, optuna.samplers.BruteForceSampler, lambda: optuna.samplers.GridSampler({"x": [1]})],
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_there_is_no_threshold_with_a_sampler_that_enumerates(tmp_path, make):
    assert thresholds(tmp_path, make()).of(X3Y0, [trial(0, 9.0, 0.0)]) is None
    assert thresholds(tmp_path, early_metric=None).of(X3Y0, [trial(0, 9.0, 0.0)]) is None


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2)), max_size=12),
    st.integers(0, 8),
    st.integers(0, 2),
)
def test_a_candidate_below_its_threshold_is_dominated(tmp_path_factory, measured, x, y):
    records = [trial(i, float(a + b), float(a + 2 * b * b)) for i, (a, b) in enumerate(measured)]
    found = thresholds(tmp_path_factory.mktemp("s")).of({"x": x, "y": y}, records)
    better = [r for r in records if r.values()["cost.board.size"] <= x + 2 * y * y]
    if found is None:
        assert not better
    else:
        assert found.least == max(r.values()["metric.quality"] for r in better)


def run(folder, **changes):
    return run_study(analytic_plan(folder, n_trials=1000, **changes), SilentObserver()).results


def front(results):
    return {
        (r.values()["metric.quality"], r.values()["cost.board.size"])
        for r in map(results.trial, results.front)
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_early_stopping_does_not_change_the_front(tmp_path, workers):
    executor = {"executor": ProcessesExecutor(workers)} if workers else {}
    whole = run(tmp_path / "whole")
    early = run(tmp_path / "early", early_metric="quality", low_fidelity=KnownSize(), **executor)
    assert front(early) == front(whole)
    assert early.states()["pruned"] > 0
    assert len(early.trials) == len(whole.trials) == 27
    for record in early.trials:
        assert ("metric.quality" in record.values()) == (record.state != "pruned")
        assert (record.n_partial > 0) == (record.state == "pruned")


def test_pruned_trials_are_stored_with_their_estimates_and_survive_a_resume(tmp_path):
    plan = analytic_plan(tmp_path, n_trials=12, early_metric="quality", low_fidelity=KnownSize())
    first = run_study(plan, SilentObserver()).results
    assert first.states()["pruned"] > 0
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
    )
    partial_trials = [
        t for t in optuna.load_study(study_name=None, storage=storage).trials if "partial" in t.user_attrs
    ]
    assert {t.state for t in partial_trials} == {TrialState.FAIL}  # Optuna prunes for one objective only
    for frozen in partial_trials:
        partial = json.loads(frozen.user_attrs["partial"])
        x, y = frozen.params["x"], frozen.params["y"]
        assert partial == {"n": 10, "values": [x + y, x + 2 * y * y], "errors": [0.5, 0.0]}
        assert frozen.constraints["small"] == x + 2 * y * y - 10
    again = run_study(
        analytic_plan(tmp_path, n_trials=27, early_metric="quality", low_fidelity=KnownSize()),
        SilentObserver(),
    )
    assert again.results.trials[:12] == first.trials
    assert len(again.results.trials) == 27


@pytest.mark.parametrize("sampler", ["TPESampler", "NSGAIISampler", "RandomSampler"])
@pytest.mark.parametrize("objectives", [(QUALITY,), OBJECTIVES])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_optunas_samplers_work_with_pruned_trials(tmp_path, sampler, objectives):
    def make(n):
        return getattr(optuna.samplers, sampler)(seed=n)

    rules = (
        Constraint("good", "metric.quality", "min", 3.0),
        Constraint("small", "cost.board.size", "max", 10.0),
    )
    plan = analytic_plan(
        tmp_path, n_trials=16, sampler=make, objectives=objectives, constraints=rules, early_metric="quality",
        low_fidelity=KnownSize() if len(objectives) > 1 else None,
    )  # fmt: skip
    results = run_study(plan, SilentObserver()).results
    assert len(results.trials) == 16
    if len(objectives) == 1 and results.states()["pruned"]:
        storage = optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
        )
        pruned = [
            t
            for t in optuna.load_study(study_name=None, storage=storage).trials
            if t.state == TrialState.PRUNED
        ]
        assert all(t.value == t.params["x"] + t.params["y"] for t in pruned)
        assert pruned


def test_the_seconds_of_a_proposal_are_listed_by_step_and_add_up(tmp_path):
    results = run(
        tmp_path, early_metric="quality", low_fidelity=KnownSize(), runner=AnalyticRunner(seconds=0.01)
    )
    for record in results.trials:
        assert {"propose", "known"} <= set(record.seconds)
        assert record.seconds["known"] == pytest.approx(0.001, rel=0.01)
        assert sum(record.seconds.values()) >= 0.9 * record.wall_s - 0.002
