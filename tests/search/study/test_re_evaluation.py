import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from evaluators.base import Measurement
from evaluators.column import Column
from evaluators.cost.latency.measured import latency_measurements
from search.record import study_files as files
from search.record.results import BASELINE, Constraint, Objective
from search.study.study import run_study
from search.study.testing import AnalyticRunner, SilentObserver, analytic_plan
from spaces.errors import EvaluationError


class Rebuilds:
    """A re-evaluator without measurements; a model's bytes are its x."""

    def on_test(self, model):
        return ()

    def time_again(self, models, n_rounds, offset):
        return []

    def timed(self, model, own_ms, float_ms):
        return ()

    def dense(self):
        return b"float"

    def rebuild(self, candidate):
        return str(candidate["x"]).encode()


def run(folder, explained_models, n_trials=27, fail=False):
    def explain(model):
        explained_models.append(int(model))
        if fail:
            raise EvaluationError("no idea")
        return {"layers": [{"layer": "a", "output_sqnr_db": float(model)}]}

    observer = SilentObserver()
    plan = analytic_plan(folder, n_trials=n_trials, re_evaluator=Rebuilds(), explain=explain)
    return run_study(plan, observer).results, observer


def test_only_the_models_that_the_report_compares_are_explained(tmp_path, monkeypatch):
    # the files of this problem are not ONNX files
    monkeypatch.setattr("search.record.study_files.write_model", write_bytes)
    explained_models = []
    results, _ = run(tmp_path, explained_models)
    explained = {t.number for t in results.trials if "layers" in t.details}
    worst = min((t for t in results.trials), key=lambda t: (t.values()["metric.quality"], t.number)).number
    assert {results.best, results.picks[0].number, *results.front[:2], worst} == explained
    assert len(explained_models) == len(explained) <= 5
    for number in explained:
        x = results.trial(number).candidate["x"]
        assert results.trial(number).details["layers"][0]["output_sqnr_db"] == x
    again, _ = run(tmp_path, explained_models)
    assert again.trials == results.trials
    assert len(explained_models) == len(explained)  # explanations are stored with the study


def test_an_error_in_an_explanation_does_not_stop_the_study(tmp_path, monkeypatch):
    monkeypatch.setattr("search.record.study_files.write_model", write_bytes)
    results, observer = run(tmp_path, [], n_trials=5, fail=True)
    assert results.best is not None
    assert any("could not be explained: no idea" in text for text in observer.messages)
    assert json.loads((tmp_path / "summary.json").read_text())["n_trials"] == 5


def write_bytes(folder, record, model):
    path = folder / "models" / f"trial_{record.label}.onnx"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(model)


LATENCY = str(Column.of("latency_ms", "board"))


def true_ms(x):
    return 1.0 + x


def first_timing(ms, slowed=1.0):
    """A first timing, which a bad moment slowed; its interquartile range tells that."""
    measured = latency_measurements([slowed * ms] * 8, [10.0] * 8, "board")
    return (*measured, Measurement("latency_iqr_ms", (slowed - 1) * ms, "ms", "measured", "board"))


@dataclass(frozen=True)
class TimedRunner(AnalyticRunner):
    """The analytic problem with a timed latency of 1 + x ms; the trial of `slow_at` is timed at a bad moment."""

    slow_at: int = 3

    def run(self, request):
        result, x = super().run(request), request.candidate["x"]
        timing = first_timing(true_ms(x), 9.0 if x == self.slow_at else 1.0)
        # quality rises with x and y, so that every x has a place on the front
        return replace(result, measurements=(*result.measurements, *timing))


class Times(Rebuilds):
    """Times models again: 1 + x ms, and the float model 10 ms, with a load that differs from round to round."""

    def __init__(self):
        self.rng, self.races = np.random.default_rng(0), []

    def time_again(self, models, n_rounds, offset):
        self.races.append((len(models), n_rounds, offset))
        load = self.rng.uniform(1, 2, n_rounds)
        return [list((10.0 if m is None else true_ms(int(m))) * load) for m in models]

    def timed(self, model, own_ms, float_ms):
        return tuple(latency_measurements(own_ms, float_ms, "board"))


def timed_plan(folder, times, **changes):
    axes = (Objective("metric.quality", "maximize"), Objective(LATENCY, "minimize"))
    base = analytic_plan(folder)
    baseline = (
        *base.baseline,
        *first_timing(10.0),
        Measurement("file_bytes", 100.0, "bytes", "measured"),
    )
    changes = {"n_trials": 27, "objectives": axes, "constraints": (), **changes}
    return replace(base, runner=TimedRunner(), baseline=baseline, re_evaluator=times, **changes)


@pytest.fixture
def byte_models(monkeypatch):
    monkeypatch.setattr("search.record.study_files.write_model", write_bytes)


def test_a_candidate_that_was_timed_at_a_bad_moment_comes_back(tmp_path, byte_models):
    times = Times()
    results = run_study(timed_plan(tmp_path, times), SilentObserver()).results
    on_front = {results.trial(n).candidate["x"] for n in results.front if n != BASELINE}
    assert on_front == set(range(9))
    slowed = next(t for t in results.trials if t.candidate["x"] == 3 and t.number in results.front)
    assert slowed.values()[str(Column.of("first_latency_ms", "board"))] == 36.0
    assert 4.0 <= slowed.values()[LATENCY] <= 8.0
    assert slowed.values()[f"{LATENCY}_low"] <= slowed.values()[LATENCY] <= slowed.values()[f"{LATENCY}_high"]
    assert times.races[1][1:] == (8, 0)  # the first call asks whether anything is timed
    assert {p.name for p in (tmp_path / "models").iterdir()} == {f"trial_{n}.onnx" for n in results.front}


def test_a_limit_that_a_bad_timing_broke_is_judged_again(tmp_path, byte_models):
    limit = Constraint("fast", LATENCY, "max", 20.0)
    results = run_study(timed_plan(tmp_path, Times(), constraints=(limit,)), SilentObserver()).results
    states = {t.candidate["x"]: t.state for t in results.trials if t.candidate["y"] == 2}
    assert states[3] == "complete"
    assert 3 in {results.trial(n).candidate["x"] for n in results.front if n != BASELINE}


def test_a_study_that_goes_on_times_what_is_new_with_the_others(tmp_path, byte_models):
    times = Times()
    run_study(timed_plan(tmp_path, times, n_trials=9), SilentObserver())
    n_races = len(times.races)
    run_study(timed_plan(tmp_path, times, n_trials=9), SilentObserver())
    assert len(times.races) == n_races  # the results are kept
    results = run_study(timed_plan(tmp_path, times, n_trials=27), SilentObserver()).results
    assert len(times.races) > n_races
    assert len({len(results.trial(n).details["timed_ms"]) for n in results.front}) == 1


def test_the_float_model_is_on_the_front_and_may_be_the_pick(tmp_path, byte_models):
    """All candidates are slower than a float model of 0.5 ms, and no better than its quality of 20."""

    class Quick(Times):
        def time_again(self, models, n_rounds, offset):
            rows = super().time_again(models, n_rounds, offset)
            return [
                [ms / 20 for ms in row] if m is None else row for m, row in zip(models, rows, strict=True)
            ]

    plan = timed_plan(tmp_path, Quick())
    better = tuple(replace(m, value=20.0) if m.name == "quality" else m for m in plan.baseline)
    results = run_study(replace(plan, baseline=better), SilentObserver()).results
    assert (results.front, results.best, [p.number for p in results.picks]) == (
        (BASELINE,),
        BASELINE,
        [BASELINE],
    )
    assert (tmp_path / "models/trial_baseline.onnx").read_bytes() == b"float"
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["pareto"] == [summary["best"]["number"]] == ["baseline"]
    assert (tmp_path / "pareto.csv").read_text().splitlines()[1].startswith("baseline,complete,")
    assert (
        summary["best"]["costs"]["board"]["latency_ms"] == summary["baseline"]["costs"]["board"]["latency_ms"]
    )


def test_the_float_model_s_file_is_kept_beside_the_front_s_where_it_is_not_on_it(tmp_path, byte_models):
    """Of this problem it breaks a limit."""
    results, _ = run(tmp_path, [], n_trials=5)
    assert BASELINE not in results.front
    assert (tmp_path / "float.onnx").read_bytes() == b"float"
    assert not (tmp_path / "models/trial_baseline.onnx").exists()
    files.drop_models_off_front(replace(results, front=(BASELINE,)))
    assert (tmp_path / "models/trial_baseline.onnx").read_bytes() == b"float"
    assert not (tmp_path / "float.onnx").exists()
    files.drop_models_off_front(results)
    assert files.float_path(tmp_path) == tmp_path / "float.onnx"
