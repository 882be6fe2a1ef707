"""A migrated MLflow database, made once a session: creating its tables takes seconds."""

import os
import shutil
import warnings

import pytest

from tests.search.tracking.serving import CHROMIUM


@pytest.fixture(scope="session", autouse=True)
def no_telemetry():
    """MLflow's client would try to send usage figures; tests stay offline."""
    before = os.environ.get("MLFLOW_DISABLE_TELEMETRY")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    yield
    if before is None:
        del os.environ["MLFLOW_DISABLE_TELEMETRY"]
    else:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = before


@pytest.fixture(scope="session")
def migrated(tmp_path_factory, no_telemetry):
    with warnings.catch_warnings():
        # Importing MLflow and migrating warns of deprecations in its dependencies.
        warnings.simplefilter("ignore")
        import mlflow.onnx  # noqa: F401
        from mlflow import MlflowClient

        path = tmp_path_factory.mktemp("mlflow") / "template.db"
        client = MlflowClient(f"sqlite:///{path}", registry_uri=f"sqlite:///{path}")
        client.search_experiments()
    return path


@pytest.fixture
def uri(migrated, tmp_path):
    """The URI of a fresh database."""
    shutil.copy(migrated, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture(scope="module")
def browser():
    """A Chromium without a window; the tests that use it are skipped where playwright is missing."""
    driving = pytest.importorskip("playwright.sync_api").sync_playwright()
    with driving as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()
