import json
import logging
import math
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from evaluators.base import Measurement
from search.record.curve import Curve
from search.record.study_files import drop_models_off_front
from search.report.testing import fake_results
from search.tracking.mlflow_tracker import MlflowTracker
from search.tracking.testing import TrackerConformance, first, odd_results, play
from spaces.candidate import Candidate
from spaces.errors import ConfigError

# Only the dependencies of MLflow warn here: SQLAlchemy, pydantic and the like deprecate things that it still uses.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow"),
]


class TestConformance(TrackerConformance):
    @pytest.fixture
    def make(self, uri):
        return lambda: MlflowTracker(uri)

    @pytest.fixture(autouse=True)
    def nothing_is_lost(self, caplog):
        """The other tests would pass even if nothing were logged."""
        yield
        assert [r.getMessage() for r in caplog.records if r.name.startswith("search.tracking")] == []


def client_of(uri):
    from mlflow import MlflowClient

    return MlflowClient(uri, registry_uri=uri)


def runs_of(uri, experiment="paredown"):
    """The parents, and the children by trial number."""
    client = client_of(uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id], max_results=500)
    parents = [r for r in found if "paredown.study" in r.data.tags]
    children = [r for r in found if "paredown.trial" in r.data.tags]
    return client, parents, children


def log_whole(uri, results):
    tracker = MlflowTracker(uri)
    play(tracker, results)
    tracker.finish(results)
    tracker.close()


def write_models(results):
    import onnx
    from onnx import TensorProto, helper

    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 3, 4, 4]) for n in ("input", "output")]
    graph = helper.make_graph([helper.make_node("Relu", ["input"], ["output"])], "g", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    for number in results.front:
        results.model_path(number).parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, results.model_path(number))


def test_every_trial_is_a_child_with_its_values(uri, tmp_path):
    results = fake_results(tmp_path / "out", 12)
    log_whole(uri, results)
    _, (parent,), children = runs_of(uri)
    assert sorted(int(c.data.tags["paredown.trial"]) for c in children) == list(range(12))
    assert parent.info.status == "FINISHED"
    for child in children:
        record = results.trial(int(child.data.tags["paredown.trial"]))
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.info.run_name == f"trial {record.number} · {record.state}"
        assert child.info.status == ("FAILED" if record.state == "failed" else "FINISHED")
        assert {k: v for k, v in child.data.metrics.items() if k[:5] in ("metri", "cost.")} == record.values()
        assert child.data.params["prune.ratio"] == str(record.candidate["prune.ratio"])
        assert child.data.tags["state"] == record.state
        assert child.data.tags["on_front"] == str(record.number in results.front).lower()
        assert all(child.data.tags[f"source.{m.column}"] == m.source for m in record.measurements)


def test_the_candidate_is_logged_whole_with_its_layers(uri, tmp_path):
    results = fake_results(tmp_path / "out", 3)
    log_whole(uri, results)
    client, _, children = runs_of(uri)
    child = next(c for c in children if c.data.tags["paredown.trial"] == "1")
    whole = json.loads(
        Path(client.download_artifacts(child.info.run_id, "candidate.json", tmp_path)).read_text()
    )
    assert Candidate(whole["candidate"]) == results.trial(1).candidate
    assert whole["details"]["layers"] == results.trial(1).details["layers"]
    assert {m["name"] for m in whole["measurements"]} == {m.name for m in results.trial(1).measurements}


def test_the_parent_has_description_metrics_and_artifacts(uri, tmp_path):
    results = fake_results(tmp_path / "out", 12)
    for name in ("trials.csv", "report.html"):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_text("x")
    log_whole(uri, results)
    client, (parent,), _ = runs_of(uri)
    note = parent.data.tags["mlflow.note.content"]
    assert f"Ship trial {results.picks[0].number} to host" in note
    assert results.command in note
    assert "**Pareto front**" in note
    assert parent.data.metrics["best.metric.top1"] == results.trial(results.best).values()["metric.top1"]
    history = client.get_metric_history(parent.info.run_id, "hypervolume")
    assert [(m.step, m.value) for m in history] == list(enumerate(results.hypervolumes))
    table = json.loads(
        Path(client.download_artifacts(parent.info.run_id, "front.json", tmp_path)).read_text()
    )
    assert [row[0] for row in table["data"]] == [str(n) for n in results.front]
    assert {a.path for a in client.list_artifacts(parent.info.run_id)} == {
        "front.json",
        "front.svg",
        "trials.csv",
        "report.html",
    }


def test_secrets_are_not_logged(uri, tmp_path):
    results = replace(
        fake_results(tmp_path / "out", 1), command="paredown tracker.uri=postgresql://u:hunter2@h/d"
    )
    log_whole(uri, results)
    _, (parent,), _ = runs_of(uri)
    assert "hunter2" not in str(parent.to_dictionary())


def test_the_float_model_is_a_run_beside_the_trials(uri, tmp_path):
    results = fake_results(tmp_path / "out", 4)
    log_whole(uri, results)
    log_whole(uri, replace(results, trials=()))
    client = client_of(uri)
    runs = client.search_runs(["1"], "tags.state = 'baseline'")
    assert len(runs) == 2  # a study without trials is another one
    for run in runs:
        assert run.data.metrics == {m.column: m.value for m in results.baseline}
        assert run.data.tags["on_front"] == "baseline"
    _, parents, _ = runs_of(uri)
    assert not any(k.startswith("baseline.") for p in parents for k in p.data.metrics)


def log_with_models(uri, results, **settings):
    tracker = MlflowTracker(uri, **settings)
    tracker.start(results)
    tracker.finish(results)
    tracker.close()


def write_baseline(results):
    """As a study leaves the uncompressed model's file."""
    folder = results.folder / "models"
    (folder / "trial_baseline.onnx").write_bytes((folder / f"trial_{results.front[0]}.onnx").read_bytes())


def test_models_of_the_front_are_logged_once_with_signature_and_data(uri, tmp_path):
    results = fake_results(tmp_path / "out", 12)
    write_models(results)
    log_whole(uri, results)
    log_with_models(uri, results)
    client, (parent,), children = runs_of(uri)
    models = client.search_logged_models([parent.info.experiment_id])
    assert sorted(m.name for m in models) == sorted(f"trial_{n}" for n in results.front)
    trial_of_run = {c.info.run_id: int(c.data.tags["paredown.trial"]) for c in children}
    for model in models:
        number = trial_of_run[model.source_run_id]
        assert model.name == f"trial_{number}"
        assert Candidate(json.loads(model.tags["candidate"])) == results.trial(number).candidate
        values = {(m.key, m.dataset_name): m.value for m in model.metrics}
        top1 = results.trial(number).values()["metric.top1"]
        assert values["metric.top1", "digits validation"] == top1
        assert ("cost.host.latency_ms", None) in values
    from mlflow.models import Model

    described = Model.load(str(Path(models[0].artifact_location.removeprefix("file://")) / "MLmodel"))
    assert described.signature.inputs.input_names() == ["input"]
    assert described.signature.inputs.inputs[0].shape == (-1, 3, 4, 4)
    assert "onnx" in described.flavors


def test_values_on_unseen_data_are_tied_to_the_test_split(uri, tmp_path):
    results = fake_results(tmp_path / "out", 6)
    number = results.front[0]
    test = Measurement("test_top1", 91.5, "%", "measured")
    trials = tuple(
        replace(t, measurements=(*t.measurements, test)) if t.number == number else t for t in results.trials
    )
    write_models(results)
    log_whole(uri, replace(results, trials=trials))
    models = client_of(uri).search_logged_models(["1"])
    found = {
        m.name: {(v.key, v.dataset_name): v.value for v in m.metrics if v.key == "metric.test_top1"}
        for m in models
    }
    assert found[f"trial_{number}"] == {("metric.test_top1", "digits test"): 91.5}
    assert not any(values for name, values in found.items() if name != f"trial_{number}")


def test_the_float_model_has_its_alias_where_it_is_not_on_the_front(uri, tmp_path):
    results = fake_results(tmp_path / "out", 6)
    write_models(results)
    write_baseline(results)
    drop_models_off_front(results)
    assert (tmp_path / "out" / "float.onnx").exists()
    log_whole(uri, results)
    version = client_of(uri).get_model_version_by_alias("digits", "float")
    assert (str(version.version), version.tags["candidate"]) == ("1", "{}")


def test_each_device_has_an_alias_and_the_float_model_is_the_first_version(uri, tmp_path):
    results = fake_results(tmp_path / "out", 12)
    write_models(results)
    write_baseline(results)
    log_whole(uri, results)
    log_with_models(uri, results)  # registers nothing twice
    client = client_of(uri)
    versions = {v.version: v for v in client.search_model_versions("name = 'digits'")}
    first_version = client.get_model_version_by_alias("digits", "float")
    assert str(first_version.version) == "1"
    assert first_version.tags["candidate"] == "{}"
    assert len(versions) == 1 + len({results.best, *(p.number for p in results.picks)})
    for pick in results.picks:
        version = client.get_model_version_by_alias("digits", pick.device)
        assert version.tags["trial"] == str(pick.number)
        assert pick.why in version.description
    assert f"Ship trial {results.picks[0].number}" in client.get_registered_model("digits").description


def test_an_alias_loads_the_pick(uri, tmp_path):
    import mlflow

    results = fake_results(tmp_path / "out", 8)
    write_models(results)
    log_whole(uri, results)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        model = mlflow.onnx.load_model("models:/digits@stm32h743")
    finally:
        mlflow.set_tracking_uri(before)
    assert model.graph.node[0].op_type == "Relu"


@pytest.mark.parametrize(("models", "n_logged"), [("picks", 2), ("none", 0)])
def test_fewer_models_on_request(uri, tmp_path, models, n_logged):
    results = fake_results(tmp_path / "out", 12)
    assert len(results.front) > 2
    write_models(results)
    log_with_models(uri, replace(results, trials=(), front=(), best=None, picks=()), models=models)
    log_with_models(uri, results, models=models)
    chosen = {results.best, *(p.number for p in results.picks)}
    assert len(client_of(uri).search_logged_models(["1"])) == (len(chosen) if n_logged else 0)


def test_resuming_adds_what_is_missing_and_repeats_nothing(uri, tmp_path):
    results = fake_results(tmp_path / "out", 10)
    tracker = MlflowTracker(uri)
    play(tracker, first(results, 4))
    tracker.close()
    _, (parent,), children = runs_of(uri)
    assert parent.info.status == "KILLED"
    assert len(children) == 4
    for start in (4, 10):  # the second time there is nothing left to do
        again = MlflowTracker(uri)
        play(again, results, start=start)
        again.finish(results)
        again.close()
        _, (resumed,), children = runs_of(uri)
        assert resumed.info.run_id == parent.info.run_id
        assert resumed.info.status == "FINISHED"
        assert sorted(int(c.data.tags["paredown.trial"]) for c in children) == list(range(10))


def test_a_fresh_study_in_the_same_folder_gets_a_run_of_its_own(uri, tmp_path):
    results = fake_results(tmp_path / "out", 4)
    log_whole(uri, results)
    log_whole(uri, results)  # the same seed again, so the same candidates, but nothing was done at its start
    _, parents, children = runs_of(uri)
    assert len(parents) == 2
    assert sorted(c.data.tags["mlflow.parentRunId"] for c in children) == sorted(
        p.info.run_id for p in parents for _ in range(4)
    )


def test_trials_that_were_lost_in_a_hard_kill_are_filled_in(uri, tmp_path):
    results = fake_results(tmp_path / "out", 9)
    tracker = MlflowTracker(uri)
    play(tracker, first(results, 3))
    tracker.close()
    client, (parent,), children = runs_of(uri)
    # As after a kill: the parent runs, one child is half written, trials 3 to 5 never arrived.
    client.update_run(parent.info.run_id, status="RUNNING")
    client.update_run(children[0].info.run_id, status="RUNNING")
    again = MlflowTracker(uri)
    play(again, results, start=6)
    again.finish(results)
    again.close()
    client, (parent,), children = runs_of(uri)
    assert parent.info.status == "FINISHED"
    assert sorted(int(c.data.tags["paredown.trial"]) for c in children) == list(range(9))
    assert all(c.info.status in ("FINISHED", "FAILED") for c in children)
    steps = [m.step for m in client.get_metric_history(parent.info.run_id, "hypervolume")]
    assert steps == list(range(9))


def test_a_lost_response_makes_no_second_run(uri, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    create, lost = MlflowClient.create_run, []

    def lossy(self, *args, **kwargs):
        run = create(self, *args, **kwargs)
        if kwargs["tags"].get("paredown.trial") == "2" and not lost:
            lost.append(run.info.run_id)
            raise ConnectionError("the response got lost")
        return run

    monkeypatch.setattr(MlflowClient, "create_run", lossy)
    tracker = MlflowTracker(uri, backoff_s=0.01)
    play(tracker, fake_results(tmp_path / "out", 4))
    tracker.finish(fake_results(tmp_path / "out", 4))
    tracker.close()
    _, _, children = runs_of(uri)
    assert sorted(c.data.tags["paredown.trial"] for c in children) == ["0", "1", "2", "3"]
    assert lost[0] in {c.info.run_id for c in children}


def test_front_tags_follow_the_front(uri, tmp_path):
    results = fake_results(tmp_path / "out", 6)
    tracker = MlflowTracker(uri)
    play(tracker, results)
    tracker.finish(replace(results, front=(results.front[-1],), best=None, picks=()))
    tracker.close()
    _, _, children = runs_of(uri)
    tagged = [int(c.data.tags["paredown.trial"]) for c in children if c.data.tags["on_front"] == "true"]
    assert tagged == [results.front[-1]]


def test_odd_names_and_values_arrive(uri, tmp_path):
    results = odd_results(tmp_path / "out")
    log_whole(uri, results)
    _, _, children = runs_of(uri)
    child = next(c for c in children if c.data.tags["paredown.trial"] == "0")
    assert child.data.params["bits/stem/conv_0"] == "4"
    assert len(child.data.params) == len(results.trial(0).candidate)
    assert all(math.isfinite(v) for v in child.data.metrics.values())
    assert child.data.tags["not_finite.metric.sqnr_db"] == "nan"
    assert child.data.tags["reason"].endswith("(cut)")
    assert len(child.data.tags["reason"]) <= 8000


def test_a_changed_config_does_not_break_a_resumed_study(uri, tmp_path):
    results = fake_results(tmp_path / "out", 3)
    log_whole(uri, results)
    more = replace(results, config={**results.config, "study": {"name": "digits", "n_trials": 99}})
    tracker = MlflowTracker(uri)
    tracker.start(more)
    tracker.finish(more)
    tracker.close()
    _, (parent,), _ = runs_of(uri)
    assert parent.data.params["config.study.n_trials"] == "24"
    assert parent.data.tags["now.config.study.n_trials"] == "99"


def test_a_server_that_is_down_warns_once_and_stops_nothing(tmp_path, caplog):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        uri = f"http://user:hunter2@127.0.0.1:{taken.getsockname()[1]}"
        tracker = MlflowTracker(uri, retries=1, backoff_s=0.05)
        before = time.monotonic()
        with caplog.at_level(logging.WARNING, logger="search.tracking"):
            play(tracker, fake_results(tmp_path, 5))
            tracker.finish(fake_results(tmp_path, 5))
            tracker.close()
    assert time.monotonic() - before < 30
    messages = [r.getMessage() for r in caplog.records if r.name.startswith("search.tracking")]
    assert len(messages) == 1
    assert "did not take everything" in messages[0]
    assert "hunter2" not in messages[0]


def test_a_deleted_experiment_warns(uri, tmp_path, caplog):
    client = client_of(uri)
    client.delete_experiment(client.create_experiment("gone", artifact_location=(tmp_path / "a").as_uri()))
    tracker = MlflowTracker(uri, experiment="gone", retries=0, backoff_s=0.01)
    tracker.start(fake_results(tmp_path / "out", 1))
    tracker.close()
    assert "was deleted" in caplog.text


@pytest.mark.parametrize(
    "settings",
    [
        {"uri": "sqlite:////nowhere/at/all/mlflow.db"},
        {"uri": "ftp://host/x"},
        {"uri": "http://"},
        {"uri": "./mlruns"},
        {"uri": "file:///tmp/mlruns"},
        {"uri": "sqlite://"},
        {"uri": "sqlite:///:memory:"},
        {"uri": ""},
        {"experiment": " "},
        {"retries": -1},
        {"backoff_s": 0},
        {"models": "all"},
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(tmp_path, settings):
    good = {"uri": f"sqlite:///{tmp_path / 'm.db'}"}
    with pytest.raises(ConfigError, match=r"tracker\."):
        MlflowTracker(**{**good, **settings}).start(fake_results(tmp_path, 1))


def test_credentials_are_kept_out_of_messages(tmp_path):
    with pytest.raises(ConfigError) as caught:
        MlflowTracker("ftp://me:hunter2@host").start(fake_results(tmp_path, 1))
    assert "hunter2" not in str(caught.value)


def test_a_training_curve_is_logged_with_its_trial(uri, tmp_path):
    results = fake_results(tmp_path / "out", 3)
    details = {"curve": Curve("top1", (40.0, 60.0, 55.0), 100).to_detail()}
    trials = [replace(t, state="pruned", details=details) if t.number == 1 else t for t in results.trials]
    log_whole(uri, replace(results, trials=tuple(trials)))
    client, _, children = runs_of(uri)
    histories = {
        int(c.data.tags["paredown.trial"]): client.get_metric_history(c.info.run_id, "curve.top1")
        for c in children
    }
    assert [(point.step, point.value) for point in histories[1]] == [(1, 40.0), (2, 60.0), (3, 55.0)]
    assert histories[0] == histories[2] == []


@pytest.mark.parametrize(
    ("broken", "lacks"),
    [
        ("front_picture", "MLflow's picture of the front"),
        ("write_views", "MLflow's views"),
        ("parent_tags", "MLflow's description"),
        ("front_table", "MLflow's table of the front"),
    ],
)
def test_a_bug_in_what_is_shown_costs_neither_trials_nor_models(
    uri, tmp_path, monkeypatch, caplog, broken, lacks
):
    def bug(*arguments, **settings):
        raise KeyError("a bug")

    results = fake_results(tmp_path / "out", 6)
    write_models(results)
    (tmp_path / "out" / "trials.csv").write_text("x")
    monkeypatch.setattr(f"search.tracking.mlflow_record.{broken}", bug)
    log_whole(uri, results)
    client, (parent,), children = runs_of(uri)
    assert len(children) == 6
    assert parent.info.status == "FINISHED"
    assert client.get_model_version_by_alias(results.name, "host").tags["trial"] == str(
        results.picks[0].number
    )
    assert "trials.csv" in {a.path for a in client.list_artifacts(parent.info.run_id)}
    (told,) = [r.getMessage() for r in caplog.records if r.name.startswith("search.tracking")]
    assert told.startswith(f"Could not make {lacks} (KeyError: 'a bug')")
    assert "in bug" in (tmp_path / "out" / "errors.log").read_text()
