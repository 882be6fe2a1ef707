"""Knowledge from an MLflow server or database: the parent and child runs that the MLflow tracker writes."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evaluators.column import Column
from search.knowledge.base import (
    MOST_TRIALS,
    Deadline,
    KnowledgeSource,
    Own,
    PastStudy,
    PastTrial,
    Refused,
    siblings_left_out,
)
from search.record.metadata import StudyMetadata, first_values, metadata_from_tag
from search.record.redact import redact_text
from search.tracking.mlflow_client import release
from search.tracking.mlflow_parent import key_of_study
from search.tracking.mlflow_tracker import quiet_migrations
from search.tracking.mlflow_uri import check_uri, sqlite_path
from spaces.errors import ConfigError, ParedownError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_PAGE = 100
_MOST_STUDIES = 200
_MEASURED = ("complete", "infeasible")


class MlflowKnowledge(KnowledgeSource):
    """Reads studies that were logged by `tracker=mlflow`, the latest first.

    Args:
        uri: Any MLflow tracking URI.
        experiment: Name of the experiment.
        seconds: Most seconds that reading may take in all, with the import of MLflow.
        telemetry: Whether MLflow's client may send usage statistics.

    Raises:
        ConfigError: `seconds` is not above 0.
    """

    def __init__(
        self,
        uri: str = "sqlite:///mlflow.db",
        experiment: str = "paredown",
        seconds: float = 15.0,
        telemetry: bool = False,
    ) -> None:
        if not seconds > 0:
            raise ConfigError(
                f"knowledge.seconds must be above 0, not {seconds}; knowledge=none reads nothing"
            )
        self._uri, self._experiment, self._telemetry = uri, experiment, telemetry
        self.seconds = seconds

    def studies(self, own: Own, deadline: Deadline) -> Iterator[PastStudy | Refused]:
        """Yields the studies, without the current one."""
        name = f"MLflow at {redact_text(self._uri)}"
        try:
            if not self._is_there(deadline):
                return
            yield from self._studies(own, deadline)
        except ParedownError as error:
            yield Refused(name, str(error))
        except Exception as error:  # MLflow and its stores have exceptions of their own
            first_line = redact_text(str(error)).partition("\n")[0][:200]
            yield Refused(name, f"{type(error).__name__}: {first_line}")

    def _is_there(self, deadline: Deadline) -> bool:
        """Returns whether the store exists.

        MLflow itself would create a missing database, and retry a dead server for minutes.
        """
        check_uri(self._uri)
        scheme = self._uri.lower().partition(":")[0]
        if scheme.startswith("sqlite"):
            path = sqlite_path(self._uri)
            return path.is_file() and path.stat().st_size > 0
        if scheme in ("http", "https"):
            import requests

            requests.get(self._uri.rstrip("/") + "/health", timeout=max(0.1, deadline.left_s))
        return True

    def _studies(self, own: Own, deadline: Deadline) -> Iterator[PastStudy | Refused]:
        if not self._telemetry:
            # MLflow reads it when it is first imported
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        with quiet_migrations():
            from mlflow import MlflowClient

            client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
            try:
                experiment = client.get_experiment_by_name(self._experiment)
                if experiment is not None:
                    yield from _of_experiment(client, str(experiment.experiment_id), own, deadline)
            finally:
                release(client)


def _of_experiment(
    client: "MlflowClient", experiment: str, own: Own, deadline: Deadline
) -> Iterator[PastStudy | Refused]:
    own_key, left, n_siblings = key_of_study(own.name, own.folder), MOST_TRIALS, 0
    for parent in _runs(client, experiment, "tags.`paredown.study` != ''", _MOST_STUDIES, deadline):
        if parent.data.tags.get("paredown.study") == own_key:
            continue
        if own.is_sibling(_name(parent)):
            n_siblings += 1
            continue
        if deadline.passed or left <= 0:
            break
        study = _study(client, experiment, parent, left, deadline)
        left -= len(study.trials) if isinstance(study, PastStudy) else 0
        yield study
    if n_siblings:
        yield siblings_left_out(n_siblings)


def _name(parent: "Run") -> str:
    return str(parent.info.run_name or parent.info.run_id)


def _study(
    client: "MlflowClient", experiment: str, parent: "Run", most: int, deadline: Deadline
) -> PastStudy | Refused:
    name = _name(parent)
    condition = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    children = list(_runs(client, experiment, condition, most, deadline))
    metadata = _metadata(parent, children)
    trials = tuple(_trial(child) for child in children if child.data.tags.get("state") in _MEASURED)
    if not trials:
        return Refused(name, "has no measured trial")
    return PastStudy(name, metadata, trials)


def _metadata(parent: "Run", children: "Sequence[Run]") -> StudyMetadata:
    tags, params = parent.data.tags, parent.data.params
    for tag in ("paredown.metadata", "paredown.facts"):  # the second one is what version 0.2.0 wrote
        if tag in tags:
            return metadata_from_tag(tags[tag])
    # version 0.2.0 wrote the uncompressed model's values to the study's own run
    baseline = {
        name.removeprefix("baseline."): value
        for name, value in parent.data.metrics.items()
        if name.startswith("baseline.")
    }
    for child in children:
        if child.data.tags.get("state") == "baseline":
            baseline |= child.data.metrics
    return StudyMetadata(
        model=_class_name(params, "model"),
        task=_class_name(params, "task"),
        baseline=first_values(baseline),
        directions=_directions(params),
        machine=tags.get("environment.cpu", ""),
    )


def _class_name(params: Mapping[str, str], group: str) -> str:
    return params.get(f"config.{group}._target_", "").rpartition(".")[2]


def _directions(params: Mapping[str, str]) -> dict[str, str]:
    """Returns the direction of each measurement, by its bare name, from a param such as `['metric', 'latency_ms']`."""
    directions: dict[str, str] = {}
    for direction in ("maximize", "minimize"):
        text = params.get(f"config.objective.{direction}", "")
        names = (part.strip(" '\"") for part in text.strip("[]").split(","))
        directions |= dict.fromkeys((name for name in names if name), direction)
    return directions


def _trial(run: "Run") -> PastTrial:
    values = {name: float(value) for name, value in run.data.metrics.items() if Column.find(name) is not None}
    return PastTrial({_path(k): v for k, v in run.data.params.items()}, first_values(values))


def _path(name: str) -> str:
    """Returns the knob path of a param's name: MLflow allows no brackets, so that a group follows a slash."""
    base, slash, group = name.partition("/")
    return f"{base}[{group}]" if slash else base


def _runs(
    client: "MlflowClient", experiment: str, condition: str, most: int, deadline: Deadline
) -> "Iterator[Run]":
    """Yields the newest runs, page by page, at most `most` of them, until the deadline."""
    token: Any = None
    left = most
    while left > 0 and not deadline.passed:
        page = client.search_runs(
            [experiment],
            condition,
            max_results=min(_PAGE, left),
            order_by=["attributes.start_time DESC"],
            page_token=token,
        )
        yield from page
        left, token = left - len(page), page.token
        if not token:
            return
