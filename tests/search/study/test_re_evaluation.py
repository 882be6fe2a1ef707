import json

from search.study.study import run_study
from search.study.testing import SilentObserver, analytic_plan
from spaces.errors import EvaluationError


class Rebuilds:
    """A re-evaluator without measurements; a model's bytes are its x."""

    def baseline(self):
        return ()

    def re_evaluate(self, model):
        return ()

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
    path = folder / "models" / f"trial_{record.number}.onnx"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(model)
