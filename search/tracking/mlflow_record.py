"""Writes one study to MLflow: a parent run, and a child run per trial and for the uncompressed model.

Run ids are explicit: no active run and no process-wide tracking URI are set.
"""

import errno
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from search.record.curve import curve_of
from search.record.metadata import metadata_in
from search.record.results import BASELINE, StudyRecord, TrialRecord
from search.report.attempts import Attempts
from search.report.picture import front_picture
from search.tracking.mlflow_client import end_run, release, runs, user
from search.tracking.mlflow_models import ModelLog, knob_params, log_data, roles_of
from search.tracking.mlflow_names import MOST_TAG_CHARS, clip, safe_names
from search.tracking.mlflow_parent import Parent, find_parent
from search.tracking.mlflow_registry import register
from search.tracking.mlflow_story import PICTURE, config_params, front_table, parent_tags
from search.tracking.mlflow_views import drop_old_views, shown_metrics, write_views
from search.tracking.writer import Phase

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PROGRESS_EVERY_S = 10.0  # between two states of the parent run while the search goes on
_MOST_POINTS = 1000  # values that MLflow takes in one call
_CANNOT_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR)
_FILES = ("config.yaml", "trials.csv", "pareto.csv", "summary.json", "report.html")


class MlflowRecord:
    """Writes the state of a study to MLflow, skipping what is logged already, so that it can be repeated.

    Args:
        client: The client.
        experiment_id: The experiment.
        results: The study, to find its parent run.
        ended_at: Trial number to the time at which it ended, in seconds since the epoch; a trial that is not in it ends when
            it is logged.
        models: Which models are logged and registered at the end: `front`, `picks` or `none`.
    """

    def __init__(
        self,
        client: "MlflowClient",
        experiment_id: str,
        results: StudyRecord,
        ended_at: Mapping[int, float] | None = None,
        models: str = "front",
    ) -> None:
        self._client, self._experiment_id, self._models = client, experiment_id, models
        self._ended_at = {} if ended_at is None else ended_at
        self._progress_due = 0.0
        self._parent: Parent = find_parent(client, experiment_id, results)
        self._half_written: dict[int, str] = dict(self._parent.unfinished)
        self._artifact_uris: dict[str, str] = {}  # of children that are being written, by run id
        self._asked_for: set[int] = set()
        self.refused: dict[int, str] = {}  # trials that MLflow will never take, and why
        self.refused_files = ""  # why files could not be written
        self.outputs = Attempts(results.folder, _of_the_store())
        self._begin(results)

    def write(self, results: StudyRecord, phase: Phase, beat: Callable[[], None]) -> None:
        """Logs trials that are missing; at the end also the front, the files and the models.

        Args:
            results: The study.
            phase: `running`, or how the study ended.
            beat: Called after each step that the next attempt will skip, as a sign of progress.
        """
        for record in results.trials:
            if record.number not in self._parent.children and record.number not in self.refused:
                self._write_child(record, results)
                beat()
        if phase != "running" or time.monotonic() >= self._progress_due:
            self._write_progress(results)
            self._progress_due = time.monotonic() + _PROGRESS_EVERY_S
        if phase == "running":
            return
        self._mark_front(results)
        self._write_end(results)
        end_run(self._client, self._parent.run_id, "FINISHED" if phase == "finished" else "KILLED")
        if self._models != "none":
            self._upload(self._log_models, results, beat)

    @property
    def place(self) -> tuple[str, str]:
        """Ids of the experiment and of the study's parent run."""
        return self._experiment_id, self._parent.run_id

    def release(self) -> None:
        """Closes connections; the next `write` opens them again."""
        release(self._client)

    def _begin(self, results: StudyRecord) -> None:
        run_id, known = self._parent.run_id, self._parent.params
        params = config_params(results.config)
        tags = self.outputs.make("MLflow's description", lambda: parent_tags(results, self.place)) or {}
        metadata = metadata_in(results.folder)
        tags |= {"paredown.metadata": metadata.to_tag()} if metadata is not None else {}
        # A param cannot be changed in MLflow: a value that differs from an earlier session's becomes a tag.
        tags |= {f"now.{k}": v for k, v in params.items() if known.get(k, v) != v}
        fresh = {k: v for k, v in params.items() if k not in known}
        self._log(run_id, {}, fresh, tags)
        if not known:
            log_data(self._client, run_id, results)
        self._write_baseline(results)
        self._write_views(results)

    def _write_views(self, results: StudyRecord) -> None:
        def write() -> None:
            write_views(self._client, self._experiment_id, self._parent.run_id, results)
            drop_old_views(self._client, self._experiment_id)

        self.outputs.make("MLflow's views", write)

    def _write_baseline(self, results: StudyRecord) -> None:
        """Writes the uncompressed model as a run beside the trials, so that tables and charts compare them with it."""
        if not results.baseline:
            return
        tags = {
            "state": "baseline",
            "on_front": "true" if BASELINE in results.front else "baseline",
            "chosen_for": ", ".join(roles_of(results).get(BASELINE, [])),
        }
        if not self._parent.baseline:
            fixed = {"mlflow.parentRunId": self._parent.run_id, "mlflow.user": user(), **tags}
            run = self._client.create_run(
                self._experiment_id, tags={**fixed, "mlflow.source.name": "paredown"}, run_name="float model"
            )
            self._parent.baseline = str(run.info.run_id)
        self._log(self._parent.baseline, {m.column: m.value for m in results.baseline}, {}, tags)
        end_run(self._client, self._parent.baseline, "FINISHED")

    def _log_models(self, results: StudyRecord, beat: Callable[[], None]) -> None:
        log = ModelLog(self._client, self._experiment_id, self._parent, results)
        ids = self.outputs.make("MLflow's models", lambda: log.log(self._models, beat)) or {}
        self.outputs.make(
            "MLflow's registered model", lambda: register(self._client, self._parent, results, ids)
        )

    def _write_child(self, record: TrialRecord, results: StudyRecord) -> None:
        from mlflow.exceptions import MlflowException

        try:
            run_id = self._half_written.get(record.number) or self._lost_child(record)
            self._asked_for.add(record.number)
            tags = _tags(record, results)
            if run_id is None:
                run_id, tags = self._create_child(record, tags), {}
            self._fill_child(run_id, record, tags, record.number in results.front)
        except MlflowException as error:
            if error.error_code not in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
                raise
            self.refused[record.number] = str(error)
            return
        self._parent.children[record.number] = run_id
        self._half_written.pop(record.number, None)

    def _lost_child(self, record: TrialRecord) -> str | None:
        """Returns the run of a trial that the server created although its response got lost."""
        if record.number not in self._asked_for:
            return None
        condition = f"tags.`mlflow.parentRunId` = '{self._parent.run_id}' AND tags.`paredown.trial` = '{record.number}'"
        return next((str(r.info.run_id) for r in runs(self._client, self._experiment_id, condition)), None)

    def _create_child(self, record: TrialRecord, more_tags: Mapping[str, str]) -> str:
        names = safe_names(more_tags)
        tags = {
            **{names[k]: clip(v, MOST_TAG_CHARS, "cut") for k, v in more_tags.items()},
            "mlflow.parentRunId": self._parent.run_id,
            "mlflow.user": user(),
            "mlflow.source.name": "paredown",
            "paredown.trial": str(record.number),
            "paredown.candidate": record.candidate.digest,
        }
        run = self._client.create_run(
            self._experiment_id,
            start_time=self._began_ms(record),
            tags=tags,
            run_name=f"trial {record.number} · {record.state}",
        )
        self._half_written[record.number] = str(run.info.run_id)
        self._artifact_uris[str(run.info.run_id)] = str(run.info.artifact_uri)
        return str(run.info.run_id)

    def _began_ms(self, record: TrialRecord) -> int:
        return round((self._ended_at.get(record.number, time.time()) - record.wall_s) * 1000)

    def _fill_child(self, run_id: str, record: TrialRecord, tags: dict[str, str], on_front: bool) -> None:
        values = {
            **record.values(),
            **{f"seconds.{k}": v for k, v in record.seconds.items()},
            "wall_s": record.wall_s,
        }
        self._log(run_id, values, knob_params(record.candidate), tags)
        self._log_curve(run_id, record)
        self._upload(self._log_json, run_id, _trial_json(record), "candidate.json")
        status = "FAILED" if record.state == "failed" else "FINISHED"
        end_run(self._client, run_id, status, self._ended_at.get(record.number))
        self._parent.on_front[record.number] = on_front

    def _log_json(self, run_id: str, content: Mapping[str, Any], name: str) -> None:
        """Logs a file of a child; without asking for the run once more where its creation told the place."""
        uri = self._artifact_uris.pop(run_id, "")
        if not uri.startswith(("/", "file:", "mlflow-artifacts:")):
            self._client.log_dict(run_id, content, name)
            return
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_text(json.dumps(content, indent=2, default=str), "utf-8")
            get_artifact_repository(uri, tracking_uri=self._client.tracking_uri).log_artifact(str(path))

    def _log_curve(self, run_id: str, record: TrialRecord) -> None:
        """Logs the metric after every epoch of the trial's trainings."""
        curve = curve_of(record.details)
        if curve is not None:
            name = f"curve.{curve.metric}"
            self._log_points(run_id, [(name, epoch, value) for epoch, value in enumerate(curve.values, 1)])

    def _write_progress(self, results: StudyRecord) -> None:
        """Logs the hypervolume after each trial, and what is shown of the best trial, at the number of trials."""
        volumes, first = results.hypervolumes, self._parent.last_step + 1
        points = [("hypervolume", first + i, volume) for i, volume in enumerate(volumes[first:])]
        values, shown = _values_of_best(results), shown_metrics(results)
        points += [
            (f"best.{column}", len(results.trials), value)
            for column, value in values.items()
            if column in shown
        ]
        self._log_points(self._parent.run_id, points)
        self._parent.last_step = max(self._parent.last_step, len(volumes) - 1)

    def _mark_front(self, results: StudyRecord) -> None:
        for number, run_id in self._parent.children.items():
            on_front = number in results.front
            if self._parent.on_front.get(number) != on_front:
                self._client.set_tag(run_id, "on_front", str(on_front).lower())
                self._parent.on_front[number] = on_front
        for number, roles in roles_of(results).items():
            if number in self._parent.children:
                self._client.set_tag(self._parent.children[number], "chosen_for", ", ".join(roles))
        self._write_baseline(results)

    def _write_end(self, results: StudyRecord) -> None:
        run_id = self._parent.run_id
        values = {"wall_s": results.wall_s, "front_size": float(len(results.front))}
        values |= {f"trials.{state}": float(n) for state, n in results.states().items()}
        tables = json.dumps([{"path": "front.json", "type": "table"}])
        make = self.outputs.make
        picture = make("MLflow's picture of the front", lambda: front_picture(results))
        has_picture = picture is not None
        tags = make("MLflow's description", lambda: parent_tags(results, self.place, has_picture)) or {}
        self._log(run_id, values, {}, {**tags, "mlflow.loggedArtifacts": tables})
        self._write_views(results)
        front = make("MLflow's table of the front", lambda: front_table(results))
        if front is not None:
            text = json.dumps(front, ensure_ascii=False)
            self._upload(self._client.log_text, run_id, text, "front.json")
        if picture is not None:
            self._upload(self._client.log_text, run_id, picture, PICTURE)
        for name in _FILES:
            if (results.folder / name).exists():
                self._upload(self._client.log_artifact, run_id, str(results.folder / name))

    def _upload(self, log: Callable[..., object], *arguments: object) -> None:
        """Logs files; where this machine cannot write them, as on a server with a folder of its own, trials go on."""
        try:
            log(*arguments)
        except OSError as error:
            if error.errno not in _CANNOT_WRITE:
                raise
            self.refused_files = str(error)

    def _log(
        self,
        run_id: str,
        values: dict[str, float],
        params: dict[str, str],
        tags: dict[str, str],
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        now_ms, names = round(time.time() * 1000), safe_names(values)
        finite = {names[k]: v for k, v in values.items() if math.isfinite(v)}
        # MLflow would store infinity as 1.8e308: values that are not finite become tags.
        not_finite = {f"not_finite.{names[k]}": str(v) for k, v in values.items() if not math.isfinite(v)}
        tag_names = safe_names([*tags, *not_finite])
        self._client.log_batch(
            run_id,
            [Metric(k, v, now_ms, 0) for k, v in finite.items()],
            [Param(k, v) for k, v in params.items()],
            [RunTag(tag_names[k], clip(v, MOST_TAG_CHARS, "cut")) for k, v in {**tags, **not_finite}.items()],
        )

    def _log_points(self, run_id: str, points: Sequence[tuple[str, int, float]]) -> None:
        """Logs values of metrics, each with its name and step."""
        from mlflow.entities import Metric

        now_ms, names = round(time.time() * 1000), safe_names(name for name, _, _ in points)
        finite = [(names[name], value, step) for name, step, value in points if math.isfinite(value)]
        for start in range(0, len(finite), _MOST_POINTS):
            batch = finite[start : start + _MOST_POINTS]
            self._client.log_batch(run_id, [Metric(name, value, now_ms, step) for name, value, step in batch])


def _of_the_store() -> tuple[type[Exception], ...]:
    """Returns the errors of MLflow and of the way to it, after which the writer tries again; requests' are OSErrors."""
    from mlflow.exceptions import MlflowException

    return MlflowException, OSError


def _values_of_best(results: StudyRecord) -> dict[str, float]:
    if results.best is None:
        return {}
    if results.best == BASELINE:
        return {m.column: m.value for m in results.baseline}
    return results.trial(results.best).values()


def _tags(record: TrialRecord, results: StudyRecord) -> dict[str, str]:
    """Returns the tags of a trial's run."""
    return {
        "state": record.state,
        "reason": record.reason,
        "on_front": str(record.number in results.front).lower(),
        "artifact_digest": record.artifact_digest or "",
        **{f"source.{m.column}": m.source for m in record.measurements},
    }


def _trial_json(record: TrialRecord) -> dict[str, Any]:
    """Returns the content of candidate.json: the whole record of a trial, with its per-layer details."""
    return {
        "number": record.number,
        "state": record.state,
        "reason": record.reason,
        "candidate": dict(record.candidate),
        "measurements": [
            {"name": m.name, "value": m.value, "unit": m.unit, "source": m.source, "device": m.device}
            for m in record.measurements
        ],
        "details": dict(record.details),
        "seconds": dict(record.seconds),
        "wall_s": record.wall_s,
        "artifact_digest": record.artifact_digest,
    }
