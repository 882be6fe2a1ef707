import base64
import json
import zlib

import pytest

from search.report.testing import fake_results
from search.tracking.mlflow_tracker import MlflowTracker
from search.tracking.mlflow_views import runs_page, shown_metrics, view_key
from search.tracking.testing import play

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow"),
]
_MOST_CHARS = 5000  # of an experiment's tag in PostgreSQL and MySQL


def state_of(view):
    """What MLflow's page does with the tag of a view."""
    head, packed = json.loads(view)["state"].split(";")
    assert head == "deflate"
    return json.loads(zlib.decompress(base64.b64decode(packed)))


@pytest.fixture
def logged(uri, tmp_path):
    """The study, its tracker's address, and the views of the experiment by key."""
    from mlflow import MlflowClient

    results, tracker = fake_results(tmp_path / "out", 12), MlflowTracker(uri)
    play(tracker, results)
    tracker.finish(results)
    tracker.close()
    tags = MlflowClient(uri).get_experiment_by_name("paredown").tags
    prefix = "mlflow.sharedViewState."
    return (
        results,
        tracker.address(),
        {k.removeprefix(prefix): v for k, v in tags.items() if k.startswith(prefix)},
    )


def test_a_view_shows_accuracy_latencies_bytes_and_knobs_sorted_by_accuracy(logged):
    _, _, views = logged
    assert sorted(json.loads(v)["name"] for v in views.values()) == ["digits: front", "digits: trials"]
    for view in views.values():
        state = state_of(view)
        for name in ("metric.top1", "cost.host.latency_ms", "cost.stm32h743.latency_ms"):
            assert f"metrics.`{name}`" in state["selectedColumns"]
        assert any(c.startswith("params.`") for c in state["selectedColumns"])
        assert state["orderByKey"] == "metrics.`metric.top1`"
        assert state["orderByAsc"] is False
        assert set(state["selectedColumns"]) < set(state["columnOrder"])
        assert len(view) < _MOST_CHARS


def test_charts_are_of_the_trials_and_no_bars_are_unfolded(logged):
    state = state_of(next(iter(logged[2].values())))
    assert {c["type"] for c in state["compareRunCharts"]} == {"SCATTER", "PARALLEL"}
    assert [s["name"] for s in state["compareRunSections"] if s["display"]] == ["Trials"]
    plotted = {(c["xaxis"]["key"], c["yaxis"]["key"]) for c in state["compareRunCharts"] if "xaxis" in c}
    assert ("cost.stm32h743.latency_ms", "metric.top1") in plotted


def test_the_filters_find_the_trials_the_front_and_the_float_model(uri, logged):
    from mlflow import MlflowClient

    results, _, views = logged
    client = MlflowClient(uri)
    found = {
        json.loads(view)["name"]: {
            run.data.tags.get("paredown.trial", "float")
            for run in client.search_runs(["1"], state_of(view)["searchFilter"])
        }
        for view in views.values()
    }
    assert found["digits: trials"] == {*(str(n) for n in range(12)), "float"}
    assert found["digits: front"] == {*(str(n) for n in results.front), "float"}


def test_the_address_opens_the_front(logged):
    _, address, views = logged
    key = address.partition("viewStateShareKey=")[2]
    assert json.loads(views[key])["name"] == "digits: front"
    assert "mlflow ui --backend-store-uri sqlite:///" in address


def test_the_address_of_a_server_is_a_link_without_its_password():
    page = runs_page("7", "0123456789abcdef", "front")
    assert page.startswith("#/experiments/7/runs?")
    assert page.endswith(view_key("0123456789abcdef", "front"))


def test_old_views_of_ours_go_and_those_of_others_stay(uri, monkeypatch, tmp_path):
    from mlflow import MlflowClient

    from search.tracking import mlflow_views

    monkeypatch.setattr(mlflow_views, "_MOST_VIEWS", 2)
    client = MlflowClient(uri)
    experiment = client.create_experiment("paredown", artifact_location=(tmp_path / "a").as_uri())
    client.set_experiment_tag(experiment, "mlflow.sharedViewState.mine", "{}")
    for i in range(2):
        tracker = MlflowTracker(uri)
        results = fake_results(tmp_path / str(i), 2)
        play(tracker, results)
        tracker.close()
    tags = client.get_experiment(experiment).tags
    kept = [k for k in tags if k.startswith("mlflow.sharedViewState.paredown-")]
    assert len(kept) == 2
    assert "mlflow.sharedViewState.mine" in tags


def test_what_is_the_same_in_all_trials_is_not_shown(tmp_path):
    results = fake_results(tmp_path, 6)
    assert shown_metrics(results)[0] == "metric.top1"
    assert len(set(shown_metrics(results))) == len(shown_metrics(results))
