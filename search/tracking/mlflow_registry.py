"""Registers the models to ship: a registered model per study, with an alias per device.

`mlflow.onnx.load_model("models:/NAME@stm32h743")` loads the pick of that device.
"""

import json
import re
from typing import TYPE_CHECKING

from search.record.results import BASELINE, StudyRecord
from search.report.findings.summary import answers, trial_sentence
from search.tracking.mlflow_models import candidate_tags, roles_of
from search.tracking.mlflow_parent import Parent

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_RESERVED = re.compile(r"v\d+|latest", re.IGNORECASE)


def registered_name(study: str) -> str:
    """Returns the registered model's name for a study: MLflow takes no `/` and `:` in it."""
    return re.sub(r"[/:\x00-\x1f]", "-", study).strip()[:200] or "study"


def alias_of(device: str) -> str:
    """Returns the alias for a device: MLflow takes letters, digits, `_` and `-`, but neither `v1` nor `latest`."""
    alias = re.sub(r"[^\w\-]", "_", device)[:200] or "_"
    return f"device-{alias}" if _RESERVED.fullmatch(alias) else alias


def register(client: "MlflowClient", parent: Parent, results: StudyRecord, model_ids: dict[int, str]) -> None:
    """Registers the uncompressed model first, then what is picked, each model once, and points the aliases to the picks.

    Args:
        client: The client.
        parent: The study's runs.
        results: The study.
        model_ids: Ids of the logged models, by trial.
    """
    name, roles = registered_name(results.name), roles_of(results)
    chosen = [n for n in sorted({BASELINE, *roles}) if n in model_ids]
    if not chosen:
        return
    _describe(client, name, results)
    known = _versions(client, name, parent)
    for number in chosen:
        version = known.get(number)
        if version is None:
            version = _create(client, name, parent, results, number, model_ids[number]).version
        told = _description(results, number, roles.get(number, []))
        client.update_model_version(name, version, told)
        for role in ["float", *roles.get(number, [])] if number == BASELINE else roles[number]:
            client.set_registered_model_alias(name, alias_of(role), version)


def _describe(client: "MlflowClient", name: str, results: StudyRecord) -> None:
    from mlflow.exceptions import MlflowException

    told = "\n\n".join(answers(results))
    try:
        client.create_registered_model(name, {"paredown.study": results.name}, told)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        client.update_registered_model(name, told)


def _versions(client: "MlflowClient", name: str, parent: Parent) -> dict[int, str]:
    """Returns this study's registered versions by trial, as far as they are among the newest 1,000."""
    found = client.search_model_versions(f"name = '{_quoted(name)}'", max_results=1000)
    return {
        int(v.tags["trial"]): str(v.version) for v in found if v.tags.get("paredown.parent") == parent.run_id
    }


def _quoted(name: str) -> str:
    return name.replace("'", "''")


def _create(
    client: "MlflowClient", name: str, parent: Parent, results: StudyRecord, number: int, model_id: str
) -> "ModelVersion":
    run_id = parent.baseline if number == BASELINE else parent.children[number]
    source = f"models:/{model_id}"
    if not client.tracking_uri.startswith("http"):
        # MLflow's database store would look a model's id up in the process's own tracking URI
        source = str(client.get_logged_model(model_id).artifact_location)
    tags = candidate_tags(results, number, parent.run_id)
    version = client.create_model_version(name, source, run_id or parent.run_id, tags, model_id=model_id)
    # as `mlflow.register_model` does: the page of the models reads it
    told = json.dumps([{"name": name, "version": str(version.version)}])
    client.set_logged_model_tags(model_id, {"mlflow.modelVersions": told})
    return version


def _description(results: StudyRecord, number: int, roles: list[str]) -> str:
    if number == BASELINE:
        return "The float model, as it was before the search."
    devices: list[str | None] = [r for r in roles if r != "overall"]
    told = [trial_sentence(results, number, device) for device in devices or [None]]
    why = [f"{p.device}: {p.why}. {p.caveat}".rstrip() for p in results.picks if p.number == number]
    return "\n\n".join([f"Trial {number}: {text}" for text in dict.fromkeys(told)] + why)
