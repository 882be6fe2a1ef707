"""Studies logged to MLflow give the same knowledge as their folders; no state of the server stops a study."""

import os
import socket
import time
import warnings

import pytest

from search.knowledge.base import Deadline, Own, PastStudy, Refused
from search.knowledge.folder import FolderKnowledge
from search.knowledge.mlflow import MlflowKnowledge
from spaces.errors import ConfigError

# Only the dependencies of MLflow warn here: SQLAlchemy, pydantic and the like deprecate things that it still uses.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow"),
]


@pytest.fixture(scope="module")
def uri(lab, tmp_path_factory):
    """A database with the studies `first` and `second`, the latter without its metadata tag."""
    before = os.environ.get("MLFLOW_DISABLE_TELEMETRY")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # tests stay offline
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    with warnings.catch_warnings():
        # Importing MLflow and migrating warns of deprecations in its dependencies.
        warnings.simplefilter("ignore")
        import mlflow.onnx  # noqa: F401
        from mlflow import MlflowClient

        client = MlflowClient(uri, registry_uri=uri)
        client.search_experiments()
        tracked = ("tracker=mlflow", f"tracker.uri={uri}", "tracker.close_timeout_s=300")
        lab.run("first", "one", *tracked)
        lab.run("second", "two", *tracked)
        experiment = client.get_experiment_by_name("paredown").experiment_id
        runs = client.search_runs([experiment], "tags.`paredown.study` != ''")
        (second,) = [r for r in runs if r.info.run_name == "second"]
        assert "paredown.metadata" in second.data.tags
        client.delete_tag(second.info.run_id, "paredown.metadata")
    yield uri
    if before is None:
        del os.environ["MLFLOW_DISABLE_TELEMETRY"]
    else:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = before


def read(uri, own, **settings):
    return {s.name: s for s in MlflowKnowledge(uri, **settings).studies(own, Deadline(120))}


@pytest.fixture
def own(lab):
    return Own("third", lab.folder / "outputs/third")


def test_logged_studies_equal_those_of_the_folder(lab, uri, own):
    logged = read(uri, own)
    assert logged.keys() == {"first", "second"}
    folders = {s.name: s for s in FolderKnowledge(str(lab.folder / "outputs")).studies(own, Deadline(60))}
    assert logged["first"].metadata == folders["first"].metadata

    def known(study):
        return {(frozenset(t.knobs.items()), t.values["metric.top1"]) for t in study.trials}

    assert known(logged["first"]) == known(folders["first"])
    second = logged["second"].metadata
    assert second.baseline["metric.top1"] == folders["second"].metadata.baseline["metric.top1"]
    assert second.directions == {"metric": "maximize", "file_bytes": "minimize"}
    assert second.machine == folders["second"].metadata.machine


def test_the_current_study_is_left_out(lab, uri):
    assert read(uri, Own("first", lab.folder / "outputs/first")).keys() == {"second"}


def test_a_real_study_learns_from_mlflow(lab, uri):
    _, known = lab.planned(
        "by_mlflow", "mlflow", "knowledge=mlflow", f"knowledge.uri={uri}", "knowledge.seconds=120"
    )
    assert len(known.rows) == 8
    assert "one (digits)" in known.summary
    assert all(row.values[0] == pytest.approx(row.value - row.baseline) for row in known.rows)


def test_a_missing_database_is_no_error_and_is_not_created(tmp_path, uri, own):
    assert read(f"sqlite:///{tmp_path}/nope.db", own) == {}
    assert list(tmp_path.iterdir()) == []
    assert read(uri, own, experiment="nope") == {}


def test_a_file_that_is_no_database_is_refused(tmp_path, own):
    (tmp_path / "bad.db").write_bytes(b"no database" * 1000)
    (refused,) = read(f"sqlite:///{tmp_path}/bad.db", own).values()
    assert isinstance(refused, Refused)
    assert "\n" not in refused.why


def test_a_server_that_is_down_is_refused_without_its_password(own):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://user:hunter2@127.0.0.1:{free.getsockname()[1]}"
        began = time.monotonic()
        (refused,) = MlflowKnowledge(uri).studies(own, Deadline(2))
    assert time.monotonic() - began < 30
    assert isinstance(refused, Refused)
    assert "hunter2" not in refused.name + refused.why


@pytest.mark.parametrize("uri", ["ftp://x", "", "sqlite:nope", "some/folder"])
def test_an_invalid_uri_is_refused(uri, own):
    (refused,) = MlflowKnowledge(uri).studies(own, Deadline(2))
    assert "uri" in refused.why


def test_nothing_is_read_after_the_deadline(uri, own):
    assert list(MlflowKnowledge(uri).studies(own, Deadline(0))) == []
    with pytest.raises(ConfigError, match=r"knowledge\.seconds"):
        MlflowKnowledge(uri, seconds=0)
    assert all(isinstance(s, PastStudy) for s in read(uri, own).values())
