"""Logs ONNX files of a study as MLflow models, with a signature, under explicit run and experiment ids.

`mlflow.onnx.log_model` would need an active run and a process-wide tracking URI; the steps are the same.
"""

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from evaluators.column import Column
from search.record.metadata import metadata_in
from search.record.results import BASELINE, StudyRecord
from search.record.study_files import float_path
from search.tracking.mlflow_names import MOST_PARAM_CHARS, MOST_TAG_CHARS, clip, safe_names
from search.tracking.mlflow_parent import Parent
from spaces.candidate import Candidate, value_text
from spaces.digest import digest_of
from spaces.models.onnx.ort_session import ort_session

if TYPE_CHECKING:
    import onnx
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

_MOST_MODELS = 50  # of a front: each is a copy of its file
_DTYPES = {
    "float": "float32",
    "float16": "float16",
    "double": "float64",
    "bool": "bool",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


class ModelLog:
    """Logs ONNX files of a study as MLflow models, each once, with the trial's measurements tied to the data they were made on.

    A model's source is the run of its trial: the table of runs shows it there. The parent run has all of them as outputs.

    Args:
        client: The client.
        experiment_id: The experiment.
        parent: The study's runs.
        results: The study.
    """

    def __init__(
        self, client: "MlflowClient", experiment_id: str, parent: Parent, results: StudyRecord
    ) -> None:
        self._client, self._experiment_id = client, experiment_id
        self._parent, self._results = parent, results
        self._data = Data.of(results)

    def log(self, which: str, beat: Callable[[], None]) -> dict[int, str]:
        """Logs models that are missing, and returns the ids of those that are on the front, picked or uncompressed, by number.

        Args:
            which: `front` logs every model on the front, `picks` those to ship; both log the uncompressed one, too.
            beat: Called after each model, as a sign of progress.
        """
        roles = roles_of(self._results)
        logged = self._logged()
        for number, model_id in logged.items():
            self._client.set_logged_model_tags(model_id, {"chosen_for": _told(roles, number)})
        wanted = [BASELINE, *(self._results.front if which == "front" else sorted(roles))]
        for number in dict.fromkeys(wanted[:_MOST_MODELS]):
            if number not in logged and self._path(number).exists():
                logged[number] = self._log(number, _told(roles, number))
                beat()
        for number in logged.keys() & set(wanted):
            self._log_values(number, logged[number])
        return {number: logged[number] for number in dict.fromkeys(wanted) if number in logged}

    def _path(self, number: int) -> Path:
        return float_path(self._results.folder) if number == BASELINE else self._results.model_path(number)

    def _logged(self) -> dict[int, str]:
        """Returns the ids of the study's complete models, by number."""
        ids, token = {}, None
        condition = f"tags.`paredown.parent` = '{self._parent.run_id}'"
        while True:
            page = self._client.search_logged_models([self._experiment_id], condition, page_token=token)
            ids.update(
                {
                    int(m.tags["trial"]): str(m.model_id)
                    for m in page
                    if str(m.status) in ("READY", "LoggedModelStatus.READY")
                }
            )
            token = page.token
            if not token:
                return ids

    def _log(self, number: int, told: str) -> str:
        import onnx
        from mlflow.entities import LoggedModelOutput

        model, run_id = onnx.load(self._path(number)), self._run(number)
        created = self._client.create_logged_model(
            self._experiment_id,
            name=_file_stem(number),
            source_run_id=run_id,
            tags={**candidate_tags(self._results, number, self._parent.run_id), "chosen_for": told},
            params={} if number == BASELINE else knob_params(self._results.trial(number).candidate),
            model_type="onnx",
        )
        try:
            with TemporaryDirectory(prefix="paredown-") as folder:
                path = Path(folder) / "model"
                _save(model, path, created.artifact_location, run_id, created.model_id)
                self._client.log_model_artifacts(created.model_id, str(path))
        except BaseException:
            self._client.finalize_logged_model(created.model_id, "FAILED")
            raise
        self._client.finalize_logged_model(created.model_id, "READY")
        for run in dict.fromkeys((run_id, self._parent.run_id)):
            self._client.log_outputs(run, [LoggedModelOutput(created.model_id, step=0)])
        return str(created.model_id)

    def _run(self, number: int) -> str:
        of_baseline = self._parent.baseline or self._parent.run_id
        return of_baseline if number == BASELINE else self._parent.children[number]

    def _log_values(self, number: int, model_id: str) -> None:
        """Logs a model's measurements, those of the last evaluation, with the data set that each was made on."""
        from mlflow.entities import Metric

        measurements = self._results.trial(number).measurements
        values = {m.column: m.value for m in measurements if math.isfinite(m.value)}
        names, now_ms = safe_names(values), round(time.time() * 1000)
        metrics = [
            Metric(names[column], value, now_ms, 0, model_id, *self._data.of_column(column))
            for column, value in values.items()
        ]
        self._client.log_batch(self._run(number), metrics)


@dataclass(frozen=True)
class Data:
    """The task's data in MLflow: name and digest, to which `validation` or `test` is added."""

    name: str
    digest: str

    @staticmethod
    def of(results: StudyRecord) -> "Data":
        """Returns the data of a study, by what it recorded of its task."""
        metadata = metadata_in(results.folder)
        name = metadata.task if metadata is not None and metadata.task else results.name
        digest = metadata.task_digest if metadata is not None and metadata.task_digest else digest_of(name)
        return Data(name[:400], digest[:25])

    def of_split(self, split: str) -> tuple[str, str]:
        """Returns the name and digest of a split; MLflow takes 36 characters of a digest."""
        return f"{self.name} {split}", f"{self.digest}-{split}"

    def of_column(self, column: str) -> tuple[str, str] | tuple[None, None]:
        """Returns the split that a metric was measured on; a cost has none."""
        parsed = Column.parse(column)
        if parsed.is_cost or column.endswith("_bytes"):
            return None, None
        return self.of_split("test" if parsed.name.startswith("test_") else "validation")


def log_data(client: "MlflowClient", run_id: str, results: StudyRecord) -> None:
    """Logs the validation and the test split as the inputs of a run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data, inputs = Data.of(results), []
    for split in ("validation", "test"):
        name, digest = data.of_split(split)
        source = json.dumps({"task": data.name, "split": split})
        dataset = Dataset(name=name, digest=digest, source_type="code", source=source)
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", split)]))
    client.log_inputs(run_id, inputs)


def roles_of(results: StudyRecord) -> dict[int, list[str]]:
    """Returns what each chosen model is chosen for: `overall`, or a device."""
    chosen: dict[int, list[str]] = defaultdict(list)
    if results.best is not None:
        chosen[results.best].append("overall")
    for pick in results.picks:
        chosen[pick.number].append(pick.device)
    return dict(chosen)


def candidate_tags(results: StudyRecord, number: int, parent_run_id: str) -> dict[str, str]:
    """Returns tags of a model: its trial, its candidate as JSON, and the digest of its file."""
    tags = {"trial": str(number), "paredown.parent": parent_run_id}
    if number == BASELINE:
        return {**tags, "candidate": "{}"}
    record = results.trial(number)
    candidate = json.dumps(dict(record.candidate), default=str)
    return {
        **tags,
        "candidate": clip(candidate, MOST_TAG_CHARS, "cut; whole in the file's metadata"),
        "artifact_digest": record.artifact_digest or "",
    }


def knob_params(candidate: Candidate) -> dict[str, str]:
    """Returns a candidate's knobs as MLflow's params."""
    names = safe_names(candidate)
    return {
        names[k]: clip(value_text(v), MOST_PARAM_CHARS, "whole in candidate.json")
        for k, v in candidate.items()
    }


def _told(roles: dict[int, list[str]], number: int) -> str:
    return ", ".join(roles.get(number, [])) or "(none)"


def _file_stem(number: int) -> str:
    return "baseline" if number == BASELINE else f"trial_{number}"


def _save(model: "onnx.ModelProto", path: Path, location: str, run_id: str, model_id: str) -> None:
    import mlflow.onnx
    import numpy as np
    import onnx
    import onnxruntime
    from mlflow.models import Model

    described = Model(artifact_path=location, model_uuid=model_id, run_id=run_id, model_id=model_id)
    mlflow.onnx.save_model(
        model,
        str(path),
        mlflow_model=described,
        signature=signature_of(model.SerializeToString()),
        # Inferring these would start a second interpreter and take seconds.
        pip_requirements=[
            f"onnx=={onnx.__version__}",
            f"onnxruntime=={onnxruntime.__version__}",
            f"numpy=={np.__version__}",
        ],
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
    )


def signature_of(model: bytes) -> "ModelSignature | None":
    """Returns inputs and outputs with dtype and shape (-1 for free axes); None if MLflow lacks a dtype.

    Args:
        model: A serialized ONNX model.
    """
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    session = ort_session(model)
    schemas = []
    for ports in (session.get_inputs(), session.get_outputs()):
        dtypes = [_DTYPES.get(p.type.removeprefix("tensor(").removesuffix(")")) for p in ports]
        if None in dtypes:
            return None
        shapes = [tuple(d if isinstance(d, int) else -1 for d in p.shape) for p in ports]
        schemas.append(
            Schema(
                [TensorSpec(np.dtype(d), s, p.name) for p, d, s in zip(ports, dtypes, shapes, strict=True)]
            )
        )
    return ModelSignature(inputs=schemas[0], outputs=schemas[1])
