"""The files of a study folder, each rewritten atomically: a reader gets the old or the new file, complete."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from search.record.results import StudyRecord, TrialRecord, model_path
from search.record.trial_records import finite, rows, split_values
from spaces.errors import StudyError
from spaces.stages.cache import write_atomic


def make_folder(folder: Path) -> None:
    """Creates the study folder and checks that it can be written.

    Raises:
        StudyError: The folder cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
    except OSError as error:
        reason = error.strerror or str(error)
        raise StudyError(
            f"study.dir: cannot write to {folder}: {reason}; choose a folder that you may write"
        ) from error


def write_config(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes config.yaml."""
    write_atomic(
        folder / "config.yaml", yaml.safe_dump(dict(record), sort_keys=False, allow_unicode=True).encode()
    )


def write_model(folder: Path, record: TrialRecord, model: bytes) -> None:
    """Writes a trial's ONNX file, with the candidate in its metadata."""
    import onnx

    proto = onnx.load_model_from_string(model)
    onnx.helper.set_model_props(
        proto,
        {
            **{p.key: p.value for p in proto.metadata_props},
            "paredown.trial": str(record.number),
            "paredown.candidate": json.dumps(dict(record.candidate), sort_keys=True),
            "paredown.digest": record.candidate.digest,
        },
    )
    write_atomic(model_path(folder, record.number), proto.SerializeToString(deterministic=True))


def drop_models_off_front(results: StudyRecord) -> None:
    """Deletes the files of models that have left the front."""
    kept = {model_path(results.folder, number).name for number in results.front}
    for path in (results.folder / "models").glob("trial_*.onnx"):
        if path.name not in kept:
            path.unlink()


def write_trials(results: StudyRecord) -> None:
    """Writes trials.csv, and aliases.csv if any proposal was answered with an earlier trial."""
    columns, table = rows(results.trials, results.knobs)
    # only the journal has to survive a power failure; a sync to disk after every trial would take too long
    write_atomic(results.folder / "trials.csv", _csv(columns, table), durable=False)
    if results.aliases:
        records = [TrialRecord(a.same_as, "complete", "", a.candidate) for a in results.aliases]
        knobs = [f"knob.{path}" for path in results.knobs]
        table = [
            {"same_as": row["number"], **{k: row.get(k, "") for k in knobs}}
            for row in rows(records, results.knobs)[1]
        ]
        write_atomic(results.folder / "aliases.csv", _csv(["same_as", *knobs], table), durable=False)


def write_front(results: StudyRecord) -> None:
    """Writes pareto.csv: the rows of the front, with the columns of trials.csv."""
    columns, table = rows(results.trials, results.knobs)
    by_number = {int(row["number"]): row for row in table}
    write_atomic(results.folder / "pareto.csv", _csv(columns, [by_number[n] for n in results.front]))


def write_summary(results: StudyRecord, extra: Any) -> None:
    """Writes summary.json."""
    metrics, costs = split_values(results.baseline)
    states = results.states()
    summary = {
        "study": results.name,
        "sampler": results.sampler,
        "seed": results.config.get("seed"),
        "n_trials": len(results.trials),
        "n_complete": states["complete"],
        "n_infeasible": states["infeasible"],
        "n_failed": states["failed"],
        "n_pruned": states["pruned"],
        "n_cached": len(results.aliases),
        "wall_s": results.wall_s,
        "baseline": {"metrics": metrics, "costs": costs},
        "best": None
        if results.best is None
        else {**_entry(results.trial(results.best)), "why": results.best_why},
        "devices": {
            p.device: {
                "best": {**_entry(results.trial(p.number)), "why": f"{p.why}. {p.caveat}".rstrip(". ")}
            }
            for p in results.picks
        },
        "pareto": list(results.front),
        "hypervolume": results.hypervolume,
        "learned": list(results.learned),
        "ended": results.ended,
        "prediction": results.prediction,
        **extra,
    }
    write_atomic(results.folder / "summary.json", (json.dumps(finite(summary), indent=2) + "\n").encode())


def _entry(record: TrialRecord) -> dict[str, Any]:
    metrics, costs = split_values(record.measurements)
    return {"number": record.number, "knobs": dict(record.candidate), "metrics": metrics, "costs": costs}


def _csv(columns: list[str], table: list[dict[str, str]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return buffer.getvalue().encode()
