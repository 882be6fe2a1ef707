"""Logs studies to MLflow from a background thread: a parent run per study, a child run per trial."""

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock

from search.record.environment import environment_variable
from search.record.redact import redact_text
from search.record.results import StudyRecord, TrialRecord
from search.tracking.base import Tracker
from search.tracking.mlflow_uri import check_artifacts, check_uri, default_artifacts, sqlite_path
from search.tracking.mlflow_views import runs_page
from search.tracking.writer import Phase, Writer
from spaces.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from search.tracking.mlflow_record import MlflowRecord

_LOG = logging.getLogger(__name__)
_SERVERS = ("http://", "https://")
_REACHABLE_TIMEOUT_S = 5.0
_TERMINATED_TIMEOUT_S = 20.0  # a cluster kills a job that does not end within 30 s or so after SIGTERM
# the client's own retries would send the request for a new run again after its response got lost, and pause for minutes
_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_EXPERIMENT_TAGS = {
    "mlflow.note.content": (
        "Each run is a Paredown study; its description says what to ship. **Views** (above) has two of each study: its front "
        "and its trials, with the columns and charts that matter. Elsewhere, filter with `tags.on_front = 'true'` and sort by "
        "a metric: sorted by date, MLflow hides trials in their collapsed studies."
    ),
    "mlflow.experimentKind": "custom_model_development",
}
_MODELS = ("front", "picks", "none")


class MlflowTracker(Tracker):
    """Logs a study to MLflow.

    Knobs become params, measurements metrics (with a tag `source.<column>`), the whole candidate with its per-layer
    details an artifact `candidate.json`. The parent's description summarises the study. A resumed study
    continues its runs and logs what is missing, in the order of the trials. If the server is down, the tracker retries
    until it is back; if it stays down, one warning is logged at the end, and the next session logs the rest: the study's
    journal is the queue. No trial is logged twice: a run whose creation was not answered is searched for first.

    Args:
        uri: Any MLflow tracking URI, e.g. `sqlite:///mlflow.db` or `http://host:5000`.
        experiment: Name of the experiment; created if there is none.
        artifact_dir: Folder or URI of a new experiment's artifacts; None keeps them in `mlartifacts` beside a SQLite
            file, or where the server says.
        retries: Further attempts at the end of the study before the tracker gives up.
        backoff_s: First pause after a failure, in seconds; doubles each time.
        close_timeout_s: Seconds without progress at the end after which the tracker gives up.
        telemetry: Whether MLflow's client may send usage figures of its own.
        models: Which models are logged at the end, as MLflow models whose metrics name their data: `front` is every model on
            the front, `picks` those to ship, each with the uncompressed one. What is picked is registered under the study's
            name, with an alias per device. `none` logs no models.
    """

    def __init__(
        self,
        uri: str = "sqlite:///mlflow.db",
        experiment: str = "paredown",
        artifact_dir: str | None = None,
        retries: int = 4,
        backoff_s: float = 0.5,
        close_timeout_s: float = 60.0,
        telemetry: bool = False,
        models: str = "front",
    ) -> None:
        self._telemetry, self._models = telemetry, models
        self._uri, self._experiment, self._artifact_dir = uri, experiment, artifact_dir
        self._retries, self._backoff_s, self._close_timeout_s = retries, backoff_s, close_timeout_s
        self._writer: Writer | None = None
        self._record: MlflowRecord | None = None
        self._at_start: StudyRecord | None = None
        self._latest: StudyRecord | None = None
        self._ended_at: dict[int, float] = {}
        self._is_finished = False

    def start(self, results: StudyRecord) -> None:
        """Checks the settings and starts the thread, which opens or reopens the record of the study.

        Raises:
            ConfigError: A setting is wrong, so that nothing could ever be logged.
        """
        if not self._telemetry:
            # MLflow reads the variable when it is first imported, later, in the writer's thread
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        check_uri(self._uri)
        check_artifacts(self._artifact_dir)
        if not isinstance(self._experiment, str) or not self._experiment.strip():
            raise ConfigError(f"tracker.experiment must be a name, not {self._experiment!r}")
        if self._models not in _MODELS:
            raise ConfigError(unknown_name("choice", str(self._models), _MODELS, "tracker.models"))
        if self._retries < 0 or self._backoff_s <= 0 or self._close_timeout_s <= 0:
            raise ConfigError(
                "tracker.retries must be >= 0, tracker.backoff_s and tracker.close_timeout_s > 0, not "
                f"{self._retries}, {self._backoff_s} and {self._close_timeout_s}"
            )
        self._record, self._at_start, self._is_finished = None, results, False
        self._ended_at = _one_after_another(results.trials)
        self._writer = Writer(self._write, self._retries, self._backoff_s)
        self._put(results, "running")

    def trial(self, record: TrialRecord, results: StudyRecord) -> None:
        """Queues one finished trial; returns at once."""
        self._ended_at[record.number] = time.time()
        self._put(results, "running")

    def finish(self, results: StudyRecord) -> None:
        """Queues front, files and models; returns at once."""
        self._is_finished = True
        self._put(results, "interrupted" if results.ended.startswith("interrupted") else "finished")

    def close(self) -> None:
        """Waits until everything is written; warns once if something could not be. May be called twice."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        if not self._is_finished and self._latest is not None:
            writer.put(self._latest, "interrupted")
        terminated = self._latest is not None and self._latest.ended.startswith("interrupted by")
        limit_s = min(self._close_timeout_s, _TERMINATED_TIMEOUT_S) if terminated else self._close_timeout_s
        error = writer.close(limit_s)
        if error is not None:
            _LOG.warning(
                "MLflow at %s did not take everything of this study (%s: %s). No result is lost: the study's "
                "folder is complete, and running the same command again logs the rest.",
                redact_text(self._uri),
                type(error).__name__,
                redact_text(str(error)).partition("\n")[0][:300],
            )
        if self._record and self._record.refused_files:
            _LOG.warning(
                "MLflow's artifacts cannot be written from here: %s. Start the server with --artifacts-destination, or set "
                "tracker.artifact_dir to a place that both reach.",
                self._record.refused_files[:300],
            )
        if self._record and self._record.outputs.message:
            _LOG.warning("%s", self._record.outputs.message)
        for number, reason in dict(self._record.refused).items() if self._record else ():
            _LOG.warning("MLflow refused trial %d: %s", number, reason.partition("\n")[0][:300])

    def address(self) -> str:
        """Returns how to open the study in MLflow; empty if nothing is logged."""
        if self._record is None:
            return ""
        page = runs_page(*self._record.place, "front")
        if self._uri.lower().startswith(_SERVERS):
            return f"MLflow: {redact_text(self._uri).rstrip('/')}/{page}"
        return f"MLflow: mlflow ui --backend-store-uri {redact_text(self._uri)}\n  then http://127.0.0.1:5000/{page}"

    def _put(self, results: StudyRecord, phase: Phase) -> None:
        self._latest = results
        if self._writer is not None:
            self._writer.put(results, phase)

    def _write(self, results: StudyRecord, phase: Phase, beat: Callable[[], None]) -> None:
        # no retries by the client itself: the writer tries again, and knows what may have arrived
        with environment_variable(_RETRIES, "0"):
            with quiet_migrations(), self._alone():
                self._check_reachable()
                if self._record is None:
                    # The parent run is found by the trials before this session: later ones are not logged yet.
                    self._record = self._open(self._at_start or results)
                    beat()
            self._record.write(results, phase, beat)
            if phase != "running":
                self._record.release()

    def _open(self, results: StudyRecord) -> "MlflowRecord":
        """Opens the store. The first use of a database creates its tables, which takes seconds."""
        # MLflow warns of its own type hints whenever it is first used for a model.
        warnings.filterwarnings("ignore", r".*Any type hint is inferred as AnyType", UserWarning)
        from mlflow import MlflowClient

        from search.tracking.mlflow_record import MlflowRecord

        client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        return MlflowRecord(client, self._experiment_id(client), results, self._ended_at, self._models)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Held while a SQLite file is opened and, if it is new, made: two studies that do so at once would break it."""
        if self._record is not None or not self._uri.lower().startswith("sqlite"):
            yield
            return
        from search.tracking.mlflow_client import make_tables

        path = sqlite_path(self._uri)
        with FileLock(path.with_name(f".{path.name}.lock")):
            make_tables(path)
            yield

    def _experiment_id(self, client: "MlflowClient") -> str:
        from mlflow.exceptions import MlflowException

        experiment = client.get_experiment_by_name(self._experiment)
        if experiment is None:
            location = default_artifacts(self._uri, self._artifact_dir)
            try:
                return str(
                    client.create_experiment(
                        self._experiment, artifact_location=location, tags=_EXPERIMENT_TAGS
                    )
                )
            except MlflowException as error:
                # another study made it since it was searched for
                experiment = client.get_experiment_by_name(self._experiment)
                if error.error_code != "RESOURCE_ALREADY_EXISTS" or experiment is None:
                    raise
        if experiment.lifecycle_stage != "active":
            raise RuntimeError(
                f"experiment {self._experiment!r} was deleted in MLflow; restore it or set tracker.experiment"
            )
        return str(experiment.experiment_id)

    def _check_reachable(self) -> None:
        """Raises at once if a server does not respond; MLflow's own client would retry for minutes."""
        if not self._uri.lower().startswith(_SERVERS):
            return
        import requests

        answer = requests.get(self._uri.rstrip("/") + "/health", timeout=_REACHABLE_TIMEOUT_S)
        if (
            answer.status_code >= 500
        ):  # a proxy answers for a server that is down; some servers have no such page
            answer.raise_for_status()


def _one_after_another(trials: Sequence[TrialRecord]) -> dict[int, float]:
    """Returns when the trials of earlier sessions ended at the latest: nothing else is known, and their order counts."""
    now, ended_at = time.time(), {}
    for record in reversed(trials):
        ended_at[record.number] = now
        now -= max(record.wall_s, 0.001)
    return ended_at


@contextmanager
def quiet_migrations() -> Iterator[None]:
    """Silences the hundred INFO lines that MLflow logs while it creates its tables."""
    loggers = [logging.getLogger(name) for name in ("alembic", "mlflow.store.db.utils")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
