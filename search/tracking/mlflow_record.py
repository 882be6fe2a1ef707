"""Writes one study to MLflow: a parent run, and a child run per trial.

Run ids are explicit: no active run and no process-wide tracking URI are set.
"""

import json
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from search.record.curve import curve_of
from search.record.metadata import metadata_in
from search.record.results import StudyRecord, TrialRecord
from search.report.findings.figures import columns
from search.tracking.mlflow_client import end_run, release, runs, user
from search.tracking.mlflow_models import log_models
from search.tracking.mlflow_names import MOST_PARAM_CHARS, MOST_TAG_CHARS, clip, safe_names
from search.tracking.mlflow_parent import Parent, find_parent
from search.tracking.mlflow_story import config_params, front_table, parent_tags
from search.tracking.writer import Phase
from spaces.candidate import value_text

if TYPE_CHECKING:
    from mlflow import MlflowClient

_FILES = ("config.yaml", "trials.csv", "pareto.csv", "summary.json", "report.html")


class MlflowRecord:
    """Writes the state of a study to MLflow, skipping what is logged already, so that it can be repeated.

    Args:
        client: The client.
        experiment_id: The experiment.
        results: The study, to find its parent run.
    """

    def __init__(self, client: "MlflowClient", experiment_id: str, results: StudyRecord) -> None:
        self._client, self._experiment_id = client, experiment_id
        self._parent: Parent = find_parent(client, experiment_id, results)
        self._half_written: dict[int, str] = dict(self._parent.unfinished)
        self._asked_for: set[int] = set()
        self.refused: dict[int, str] = {}  # trials that MLflow will never take, and why
        self._begin(results)

    def write(self, results: StudyRecord, phase: Phase, beat: Callable[[], None]) -> None:
        """Logs trials that are missing; at the end also the front, the files and the models.

        Args:
            results: The study.
            phase: `running`, or how the study ended.
            beat: Called after each step, as a sign of progress.
        """
        for record in results.trials:
            if record.number not in self._parent.children and record.number not in self.refused:
                self._write_child(record, results)
                beat()
        self._write_progress(results)
        if phase == "running":
            return
        self._mark_front(results)
        self._write_end(results)
        end_run(self._client, self._parent.run_id, "FINISHED" if phase == "finished" else "KILLED")
        beat()
        log_models(self._client, self._experiment_id, self._parent.run_id, results)

    def release(self) -> None:
        """Closes connections; the next `write` opens them again."""
        release(self._client)

    def _begin(self, results: StudyRecord) -> None:
        run_id, known = self._parent.run_id, self._parent.params
        params = config_params(results.config)
        tags = parent_tags(results)
        metadata = metadata_in(results.folder)
        tags |= {"paredown.metadata": metadata.to_tag()} if metadata is not None else {}
        # A param cannot be changed in MLflow: a value that differs from an earlier session's becomes a tag.
        tags |= {f"now.{k}": v for k, v in params.items() if known.get(k, v) != v}
        fresh = {k: v for k, v in params.items() if k not in known}
        values = {m.column: m.value for m in results.baseline}
        self._log(run_id, {f"baseline.{c}": v for c, v in values.items()}, fresh, tags)

    def _write_child(self, record: TrialRecord, results: StudyRecord) -> None:
        from mlflow.exceptions import MlflowException

        try:
            run_id = self._half_written.get(record.number) or self._lost_child(record)
            self._asked_for.add(record.number)
            run_id = run_id or self._create_child(record)
            self._fill_child(run_id, record, results)
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

    def _create_child(self, record: TrialRecord) -> str:
        now_ms = round(time.time() * 1000)
        tags = {
            "mlflow.parentRunId": self._parent.run_id,
            "mlflow.user": user(),
            "mlflow.source.name": "paredown",
            "paredown.trial": str(record.number),
            "paredown.candidate": record.candidate.digest,
        }
        run = self._client.create_run(
            self._experiment_id,
            start_time=now_ms - round(record.wall_s * 1000),
            tags=tags,
            run_name=f"trial {record.number} · {record.state}",
        )
        self._half_written[record.number] = str(run.info.run_id)
        return str(run.info.run_id)

    def _fill_child(self, run_id: str, record: TrialRecord, results: StudyRecord) -> None:
        values = {
            **record.values(),
            **{f"seconds.{k}": v for k, v in record.seconds.items()},
            "wall_s": record.wall_s,
        }
        names = safe_names(record.candidate)
        params = {
            names[k]: clip(value_text(v), MOST_PARAM_CHARS, "whole in candidate.json")
            for k, v in record.candidate.items()
        }
        on_front = record.number in results.front
        tags = {"state": record.state, "reason": record.reason, "on_front": str(on_front).lower()}
        tags |= {"artifact_digest": record.artifact_digest or ""}
        tags |= {f"source.{m.column}": m.source for m in record.measurements}
        self._log(run_id, values, params, tags)
        self._log_curve(run_id, record)
        self._client.log_dict(run_id, _trial_json(record), "candidate.json")
        end_run(self._client, run_id, "FAILED" if record.state == "failed" else "FINISHED")
        self._parent.on_front[record.number] = on_front

    def _log_curve(self, run_id: str, record: TrialRecord) -> None:
        """Logs the metric after every epoch of the trial's trainings."""
        curve = curve_of(record.details)
        if curve is not None:
            self._log_steps(run_id, f"curve.{curve.metric}", dict(enumerate(curve.values, 1)))

    def _write_progress(self, results: StudyRecord) -> None:
        steps = {i: v for i, v in enumerate(results.hypervolumes) if i > self._parent.last_step}
        self._log_steps(self._parent.run_id, "hypervolume", steps)
        self._parent.last_step = max([self._parent.last_step, *steps])
        if results.best is not None:
            main_columns = set(columns(results))
            values = {
                f"best.{c}": v for c, v in results.trial(results.best).values().items() if c in main_columns
            }
            self._log(self._parent.run_id, values, {}, {}, step=len(results.trials))

    def _mark_front(self, results: StudyRecord) -> None:
        for number, run_id in self._parent.children.items():
            on_front = number in results.front
            if self._parent.on_front.get(number) != on_front:
                self._client.set_tag(run_id, "on_front", str(on_front).lower())
                self._parent.on_front[number] = on_front

    def _write_end(self, results: StudyRecord) -> None:
        run_id = self._parent.run_id
        values = {"wall_s": results.wall_s, "front_size": float(len(results.front))}
        values |= {f"trials.{state}": float(n) for state, n in results.states().items()}
        tables = json.dumps([{"path": "front.json", "type": "table"}])
        self._log(run_id, values, {}, {**parent_tags(results), "mlflow.loggedArtifacts": tables})
        self._client.log_text(run_id, json.dumps(front_table(results), ensure_ascii=False), "front.json")
        for name in _FILES:
            if (results.folder / name).exists():
                self._client.log_artifact(run_id, str(results.folder / name))

    def _log(
        self,
        run_id: str,
        values: dict[str, float],
        params: dict[str, str],
        tags: dict[str, str],
        step: int = 0,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        now_ms, names = round(time.time() * 1000), safe_names(values)
        finite = {names[k]: v for k, v in values.items() if math.isfinite(v)}
        # MLflow would store infinity as 1.8e308: values that are not finite become tags.
        not_finite = {f"not_finite.{names[k]}": str(v) for k, v in values.items() if not math.isfinite(v)}
        tag_names = safe_names([*tags, *not_finite])
        self._client.log_batch(
            run_id,
            [Metric(k, v, now_ms, step) for k, v in finite.items()],
            [Param(k, v) for k, v in params.items()],
            [RunTag(tag_names[k], clip(v, MOST_TAG_CHARS, "cut")) for k, v in {**tags, **not_finite}.items()],
        )

    def _log_steps(self, run_id: str, name: str, steps: dict[int, float]) -> None:
        from mlflow.entities import Metric

        now_ms = round(time.time() * 1000)
        metrics = [Metric(name, v, now_ms, i) for i, v in steps.items() if math.isfinite(v)]
        self._client.log_batch(run_id, metrics)


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
