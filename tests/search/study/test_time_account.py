import time
from dataclasses import replace

import pytest

from search.executors.processes import ProcessesExecutor
from search.report.findings.time_spent import cost_report, phases, steps
from search.study.study import run_study
from search.study.testing import AnalyticRunner, SilentObserver, analytic_plan


def whole_s(results):
    return sum(steps(results).values()) + sum(spent.seconds for spent in phases(results))


def test_the_seconds_of_a_serial_study_add_up_to_its_wall_time(tmp_path):
    plan = analytic_plan(tmp_path, n_trials=8, runner=AnalyticRunner(seconds=0.1), start_s=2.0)
    began = time.monotonic()
    results = run_study(plan, SilentObserver()).results
    assert whole_s(results) == pytest.approx(2.0 + time.monotonic() - began, rel=0.05, abs=0.1)
    assert steps(results)["think"] == pytest.approx(0.8)
    assert "start" in {spent.name for spent in phases(results)}


def test_the_seconds_of_several_workers_add_up_to_their_time(tmp_path):
    executor = ProcessesExecutor(workers=2)
    plan = analytic_plan(tmp_path, n_trials=6, runner=AnalyticRunner(seconds=0.2), executor=executor)
    results = run_study(plan, SilentObserver()).results
    spent = {s.name: s.seconds for s in phases(results)}
    assert spent["idle"] > 0  # while the workers start, and once the last trials run
    search_s = results.phases["search"]
    assert spent["idle"] + spent.get("duplicates", 0.0) + sum(steps(results).values()) == pytest.approx(
        search_s
    )
    assert search_s >= 2 * 3 * 0.2


def test_sessions_are_added_up(tmp_path):
    first = run_study(analytic_plan(tmp_path, n_trials=3, start_s=5.0), SilentObserver()).results
    assert first.phases["start"] == pytest.approx(5.0, abs=0.5)
    second = run_study(analytic_plan(tmp_path, n_trials=5, start_s=7.0), SilentObserver()).results
    assert second.phases["start"] == pytest.approx(12.0, abs=0.5)
    assert second.phases["search"] > first.phases["search"]


def test_the_report_says_in_words_where_the_time_went(tmp_path):
    results = run_study(analytic_plan(tmp_path, n_trials=2), SilentObserver()).results
    trials = tuple(
        replace(
            t,
            seconds={
                "propose": 1.0,
                "low_fidelity": 2.0,
                "quantize": 10.0,
                "accuracy": 4.0,
                "latency": 2.0,
                "waiting": 6.0,
            },
            wall_s=25.0,
        )
        for t in results.trials
    )
    told = cost_report(
        replace(results, trials=trials, phases={"start": 20.0, "search": 60.0, "re_evaluation": 20.0})
    )
    assert told == (
        "time: 1 min 40 s of all workers together: start 20 %, re-evaluation 20 %, building (quantize) 20 %, waiting for the "
        "machine 12 %, idle 10 %, evaluating 8 %, timing 4 %, low-fidelity evaluations 4 %, choosing candidates 2 %"
    )


def test_without_an_account_nothing_is_said(tmp_path):
    results = run_study(analytic_plan(tmp_path, n_trials=2), SilentObserver()).results
    assert cost_report(replace(results, phases={})) == ""
