"""Finds a study's parent run in MLflow, with the trials that are logged already."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from search.record.results import StudyRecord
from search.tracking.mlflow_client import runs, user
from spaces.digest import digest_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


@dataclass
class Parent:
    """The parent run of a study and its child runs.

    Attributes:
        run_id: The parent's run id.
        params: The parent's params.
        children: Trial number to run id, for trials that are completely written.
        unfinished: Trial number to run id, for trials whose writing was interrupted.
        on_front: Trial number to the value of its tag `on_front`.
        baseline: Run id of the uncompressed model; empty if it has none yet.
        last_step: The last logged step of the metric `hypervolume`; -1 if there is none.
    """

    run_id: str
    params: dict[str, str] = field(default_factory=dict)
    children: dict[int, str] = field(default_factory=dict)
    unfinished: dict[int, str] = field(default_factory=dict)
    on_front: dict[int, bool] = field(default_factory=dict)
    baseline: str = ""
    last_step: int = -1


def study_key(results: StudyRecord) -> str:
    """Returns a digest of a study's name and folder, the value of the tag `paredown.study`."""
    return key_of_study(results.name, results.folder)


def key_of_study(name: str, folder: Path) -> str:
    """Returns the value of the tag `paredown.study` for the study of that name in that folder."""
    return digest_of(name, str(folder.resolve()))


def find_parent(client: "MlflowClient", experiment_id: str, results: StudyRecord) -> Parent:
    """Returns the study's parent run, creating it if there is none.

    A run belongs to the study if it has the study's key and no trial that the study lacks: a new study in the
    same folder gets a run of its own.
    """
    for run in runs(client, experiment_id, f"tags.`paredown.study` = '{study_key(results)}'"):
        parent = _known(client, experiment_id, run, results)
        if parent is not None:
            client.update_run(parent.run_id, status="RUNNING")
            return parent
    tags = {"paredown.study": study_key(results), "mlflow.user": user(), "mlflow.source.name": "paredown"}
    created = client.create_run(experiment_id, tags=tags, run_name=results.name)
    return Parent(str(created.info.run_id))


def _known(client: "MlflowClient", experiment_id: str, run: "Run", results: StudyRecord) -> Parent | None:
    parent = Parent(run.info.run_id, dict(run.data.params))
    candidates = {t.number: t.candidate.digest for t in results.trials}
    for child in runs(client, experiment_id, f"tags.`mlflow.parentRunId` = '{parent.run_id}'"):
        tags = child.data.tags
        if tags.get("state") == "baseline":
            parent.baseline = str(child.info.run_id)
            continue
        number = int(tags.get("paredown.trial", "-1"))
        if candidates.get(number) != tags.get("paredown.candidate"):
            return None
        kind = parent.unfinished if child.info.status == "RUNNING" else parent.children
        kind[number] = child.info.run_id
        parent.on_front[number] = tags.get("on_front") == "true"
    history = client.get_metric_history(parent.run_id, "hypervolume")
    parent.last_step = max((m.step for m in history), default=-1)
    return parent
