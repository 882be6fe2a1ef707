"""Logs the chosen ONNX files as MLflow models, with a signature, under explicit run and experiment ids.

`mlflow.onnx.log_model` would need an active run and a process-wide tracking URI; the steps are the same.
"""

from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from search.record.results import StudyRecord
from search.tracking.mlflow_names import MOST_PARAM_CHARS, clip, safe_names
from spaces.candidate import value_text
from spaces.models.onnx.ort_session import ort_session

if TYPE_CHECKING:
    import onnx
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

_DTYPES = {
    "float": "float32",
    "float16": "float16",
    "double": "float64",
    "bool": "bool",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def log_models(client: "MlflowClient", experiment_id: str, run_id: str, results: StudyRecord) -> None:
    """Logs the overall pick and each device's pick, once each, as `trial_<number>` with the tag `chosen_for`."""
    chosen: dict[int, list[str]] = defaultdict(list)
    if results.best is not None:
        chosen[results.best].append("overall")
    for pick in results.picks:
        chosen[pick.number].append(pick.device)
    logged = _logged(client, experiment_id, run_id)
    for name, model_id in logged.items():
        client.set_logged_model_tags(model_id, {"chosen_for": _roles(chosen, name)})
    for number in sorted(chosen):
        name = f"trial_{number}"
        if name not in logged and results.model_path(number).exists():
            _log_model(client, experiment_id, run_id, results, number, _roles(chosen, name))


def _roles(chosen: dict[int, list[str]], name: str) -> str:
    return ", ".join(chosen.get(int(name.rpartition("_")[2]), [])) or "(no longer)"


def _logged(client: "MlflowClient", experiment_id: str, run_id: str) -> dict[str, str]:
    """Returns the ids of this run's complete models, by name."""
    ids, token = {}, None
    while True:
        page = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'", page_token=token)
        ids.update(
            {m.name: m.model_id for m in page if str(m.status) in ("READY", "LoggedModelStatus.READY")}
        )
        token = page.token
        if not token:
            return {name: i for name, i in ids.items() if name.rpartition("_")[2].isdigit()}


def _log_model(
    client: "MlflowClient", experiment_id: str, run_id: str, results: StudyRecord, number: int, roles: str
) -> None:
    import onnx
    from mlflow.entities import LoggedModelOutput

    record, model = results.trial(number), onnx.load(results.model_path(number))
    names = safe_names(record.candidate)
    params = {names[k]: clip(value_text(v), MOST_PARAM_CHARS, "cut") for k, v in record.candidate.items()}
    tags = {"chosen_for": roles, "trial": str(number), "artifact_digest": record.artifact_digest or ""}
    created = client.create_logged_model(
        experiment_id,
        name=f"trial_{number}",
        source_run_id=run_id,
        tags=tags,
        params=params,
        model_type="onnx",
    )
    try:
        with TemporaryDirectory(prefix="paredown-") as folder:
            path = Path(folder) / "model"
            _save(model, path, created.artifact_location, run_id, created.model_id)
            client.log_model_artifacts(created.model_id, str(path))
    except BaseException:
        client.finalize_logged_model(created.model_id, "FAILED")
        raise
    client.finalize_logged_model(created.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(created.model_id, step=0)])


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
