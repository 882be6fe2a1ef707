"""MLflow away for a while, slow, or shared: every trial arrives once, in order, and the search never waits."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from search.report.testing import fake_results
from search.study.study import run_study
from search.study.testing import AnalyticRunner, SilentObserver, analytic_plan
from search.tracking.mlflow_tracker import MlflowTracker
from search.tracking.testing import first, play
from spaces.space_config import read_space
from tests.ports import free_port

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow"),
]


def client_of(uri):
    from mlflow import MlflowClient

    return MlflowClient(uri, registry_uri=uri)


def runs_of(uri):
    """The parents, and the numbers of the children by parent, in the order in which they began."""
    client = client_of(uri)
    experiment = client.get_experiment_by_name("paredown")
    if experiment is None:
        return [], {}
    found, token = [], None
    while True:
        page = client.search_runs([experiment.experiment_id], max_results=500, page_token=token)
        found += page
        token = page.token
        if not token:
            break
    parents = [r for r in found if "paredown.study" in r.data.tags]
    children = {p.info.run_id: [] for p in parents}
    for run in sorted(found, key=lambda run: run.info.start_time):
        if "paredown.trial" in run.data.tags:
            children[run.data.tags["mlflow.parentRunId"]].append(run)
    return parents, children


def numbers(children):
    return [int(run.data.tags["paredown.trial"]) for run in children]


def test_an_experiment_that_another_study_makes_at_the_same_time_is_used(uri, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    get = MlflowClient.get_experiment_by_name
    made = []

    def too_early(self, name):
        """The first study to ask sees none; another one makes it before the answer is used."""
        if not made:
            made.append(self.create_experiment(name, artifact_location=(tmp_path / "a").as_uri()))
            return None
        return get(self, name)

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", too_early)
    tracker = MlflowTracker(uri, retries=0)
    results = fake_results(tmp_path / "out", 3)
    play(tracker, results)
    tracker.finish(results)
    tracker.close()
    parents, children = runs_of(uri)
    assert numbers(children[parents[0].info.run_id]) == [0, 1, 2]


def test_an_interrupted_study_is_killed_in_mlflow(uri, tmp_path):
    from dataclasses import replace

    tracker, results = MlflowTracker(uri), fake_results(tmp_path / "out", 3)
    play(tracker, results)
    tracker.finish(replace(results, ended="interrupted by SIGTERM"))
    tracker.close()
    (parent,), children = runs_of(uri)
    assert parent.info.status == "KILLED"
    assert {run.info.status for run in children[parent.info.run_id]} == {"FINISHED"}


def test_artifacts_that_cannot_be_written_hold_up_no_trial(uri, tmp_path, monkeypatch, caplog):
    """As with a server that names a folder of its own machine."""

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied", "/mlruns")

    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    monkeypatch.setattr(LocalArtifactRepository, "log_artifact", refuse)
    tracker, results = MlflowTracker(uri, retries=0), fake_results(tmp_path / "out", 3)
    play(tracker, results)
    tracker.finish(results)
    tracker.close()
    (parent,), children = runs_of(uri)
    assert numbers(children[parent.info.run_id]) == [0, 1, 2]
    assert parent.info.status == "FINISHED"
    assert "cannot be written from here" in caplog.text


def test_a_new_file_appears_only_when_its_tables_are_whole(tmp_path, monkeypatch):
    """MLflow cannot open a file again in which a process was killed while it made them."""
    from mlflow import MlflowClient

    from search.tracking.mlflow_client import make_tables

    class KilledError(BaseException):
        pass

    def killed(*arguments, **settings):
        raise KilledError

    path = tmp_path / "mlflow.db"
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "search_experiments", killed)
        (tmp_path / ".mlflow.db.new").write_bytes(b"half of it")
        with pytest.raises(KilledError):
            make_tables(path)
    assert not path.exists()
    make_tables(path)
    assert [p.name for p in tmp_path.iterdir()] == ["mlflow.db"]
    client = client_of(f"sqlite:///{path}")
    assert [e.name for e in client.search_experiments()] == ["Default"]


def test_trials_of_an_earlier_session_follow_each_other_in_order(uri, tmp_path):
    """The first session had no server: nothing is known of when its trials ended."""
    results = fake_results(tmp_path / "out", 9)
    tracker = MlflowTracker(uri)
    play(tracker, results, start=6)
    tracker.finish(results)
    tracker.close()
    (parent,), children = runs_of(uri)
    ordered = [
        n for n in numbers(children[parent.info.run_id]) if n < 6
    ]  # later ones took longer than this test
    assert ordered == list(range(6))


def test_the_clients_own_retries_are_off_while_the_tracker_writes(uri, tmp_path, monkeypatch):
    """The client would repeat a request for a new run whose response got lost: a trial would be there twice."""
    from mlflow import MlflowClient

    create, seen = MlflowClient.create_run, []

    def noted(self, *args, **kwargs):
        seen.append(os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES"))
        return create(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_run", noted)
    tracker = MlflowTracker(uri)
    play(tracker, fake_results(tmp_path / "out", 2))
    tracker.close()
    assert set(seen) == {"0"}
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_the_time_of_a_trial_does_not_grow_with_their_number(uri, tmp_path, monkeypatch):
    """Calls of MLflow per trial, which are what costs."""
    from mlflow import MlflowClient

    calls = Counter()
    for name in ("create_run", "log_batch", "get_run", "search_runs", "get_metric_history", "set_tag"):
        original = getattr(MlflowClient, name)

        def counted(self, *args, _original=original, _name=name, **kwargs):
            calls[_name] += 1
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(MlflowClient, name, counted)
    tracker, results = MlflowTracker(uri), fake_results(tmp_path / "out", 30)
    tracker._at_start = first(results, 0)
    tracker._write(first(results, 0), "running", lambda: None)
    calls.clear()
    for n_trials in range(1, 31):
        tracker._write(first(results, n_trials), "running", lambda: None)
    assert calls["create_run"] == 30
    assert calls["log_batch"] <= 40  # a state of the parent every few seconds
    assert calls["get_run"] == calls["search_runs"] == calls["get_metric_history"] == calls["set_tag"] == 0


class Server:
    """`mlflow server` on a SQLite file, in a process group of its own."""

    def __init__(self, folder):
        self.port = free_port()
        self.folder, self.uri, self._process = folder, f"http://127.0.0.1:{self.port}", None

    def start(self):
        command = [
            sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}",
            "--artifacts-destination", str(self.folder / "artifacts"), "--host", "127.0.0.1", "--port", str(self.port),
            "--workers", "1",
        ]  # fmt: skip
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        import requests

        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                if requests.get(f"{self.uri}/health", timeout=2).ok:
                    return
            except requests.RequestException:
                time.sleep(0.3)
        raise TimeoutError("mlflow server does not answer")

    def stop(self):
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(migrated, tmp_path):
    import shutil

    shutil.copy(migrated, tmp_path / "server.db")
    server = Server(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def study(folder, uri, n_trials, seconds, on_trial=None, **settings):
    space = read_space({"x": {"int": [0, 800]}, "y": [0, 1, 2], "z": ["a", "b"]})
    plan = analytic_plan(
        folder,
        name=folder.name,
        space=space,
        n_trials=n_trials,
        runner=AnalyticRunner(seconds=seconds),
        tracker=MlflowTracker(uri, **settings),
    )
    return run_study(plan, SilentObserver(on_trial=on_trial))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_server_that_is_away_for_the_middle_third_gets_every_trial_once_in_order(server, tmp_path, caplog):
    restarted = []

    def on_trial(record):
        if record.number == 10:
            server.stop()
        if record.number == 20:
            thread = threading.Thread(target=server.start)
            thread.start()
            restarted.append(thread)

    outcome = study(tmp_path / "study", server.uri, 30, 1.0, on_trial, backoff_s=0.2, retries=8)
    restarted[0].join()
    assert len(outcome.results.trials) == 30
    (parent,), children = runs_of(server.uri)
    assert numbers(children[parent.info.run_id]) == list(range(30))
    assert parent.info.status == "FINISHED"
    assert {run.info.status for run in children[parent.info.run_id]} == {"FINISHED"}
    assert "did not take everything" not in caplog.text
    text = Path(
        client_of(server.uri).download_artifacts(
            children[parent.info.run_id][15].info.run_id, "candidate.json"
        )
    )
    assert json.loads(text.read_text())["number"] == 15


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_a_server_did_not_get_is_delivered_by_the_next_session(server, tmp_path, caplog):
    server.stop()
    study(tmp_path / "study", server.uri, 6, 0.0, backoff_s=0.05, retries=1)
    assert "did not take everything" in caplog.text
    server.start()
    study(tmp_path / "study", server.uri, 8, 0.0)
    (parent,), children = runs_of(server.uri)
    assert numbers(children[parent.info.run_id]) == list(range(8))


SIDE_BY_SIDE = """
import sys
from pathlib import Path
from tests.search.tracking.test_mlflow_away import study

study(Path(sys.argv[1]), sys.argv[2], 20, 1.5)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["server", "file"])
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_two_studies_side_by_side_are_logged_beside_each_other(request, tmp_path, kind):
    """On a new server, and on a new SQLite file, whose tables only one of them may make."""
    uri = request.getfixturevalue("server").uri if kind == "server" else f"sqlite:///{tmp_path / 'new.db'}"
    (tmp_path / "side.py").write_text(SIDE_BY_SIDE)
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    studies = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "side.py"), str(tmp_path / name), uri],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    try:
        most_while_running = 0
        until = time.monotonic() + 200
        while all(process.poll() is None for process in studies) and time.monotonic() < until:
            time.sleep(2)
            # the tables of a new file take longer to make than the studies to run
            arrived = sum(map(len, runs_of(uri)[1].values())) if kind == "server" else 0
            if all(process.poll() is None for process in studies):
                most_while_running = max(most_while_running, arrived)
        errors = [process.communicate(timeout=60)[1] for process in studies]
    finally:
        for process in studies:
            process.kill()
            process.wait()
    assert [process.returncode for process in studies] == [0, 0], errors
    assert most_while_running >= 6 or kind == "file"
    parents, children = runs_of(uri)
    assert [numbers(children[p.info.run_id]) for p in parents] == [list(range(20))] * 2
