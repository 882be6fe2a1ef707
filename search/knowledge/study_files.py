"""Reads the folder of one study, which may be finished, running, killed, or damaged."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from evaluators.column import Column
from search.knowledge.base import PastStudy, PastTrial, Refused
from search.record.metadata import StudyMetadata, first_values, metadata_from_json, numbers
from search.record.values import cell_text, number

_MOST_BYTES = {
    "config.yaml": 5 * 2**20,
    "summary.json": 20 * 2**20,
    "trials.csv": 200 * 2**20,
    "aliases.csv": 200 * 2**20,
}
_MEASURED = ("complete", "infeasible")


def read_study(folder: Path) -> PastStudy | Refused | None:
    """Returns the study in a folder, the reason why it cannot be used, or None if there is no study."""
    try:
        return _read_study(folder)
    except _UnusableError as error:
        return Refused(folder.name, str(error))
    except Exception as error:  # no content of a file may stop the current study
        return Refused(folder.name, f"cannot be read: {type(error).__name__}: {error}".partition("\n")[0])


class _UnusableError(Exception):
    """The study of a folder cannot be used; the message says why."""


def _read_study(folder: Path) -> PastStudy | Refused | None:
    text = _text(folder, "config.yaml")
    if text is None:
        return Refused(folder.name, "has trials.csv but no config.yaml")
    record = _yaml(text)
    if not isinstance(record, Mapping) or not isinstance(record.get("config"), Mapping):
        if (folder / "trials.csv").exists():
            raise _UnusableError("its config.yaml is no study's (it has no `config`)")
        return None  # a config.yaml of another program
    if record["config"].get("tabular") is not None:
        return None  # a search in a table: knowledge=csv reads the table itself
    table = _text(folder, "trials.csv")
    if table is None:
        raise _UnusableError("has no trials.csv: no trial has ended")
    metadata = _metadata(record, folder)
    by_number = trials_of(table)
    trials = (*by_number.values(), *_aliases(_text(folder, "aliases.csv"), by_number))
    if not trials:
        raise _UnusableError("has no measured trial")
    return PastStudy(folder.name, metadata, trials)


def _metadata(record: Mapping[str, Any], folder: Path) -> StudyMetadata:
    """Returns the metadata that the study recorded; if there are none, those in its other files."""
    if isinstance(record.get("knowledge"), Mapping):
        return metadata_from_json(record["knowledge"])
    config, digests = record["config"], record.get("digests")
    model = digests.get("model") if isinstance(digests, Mapping) else None
    versions = record.get("versions")
    return StudyMetadata(
        model=_class_name(config.get("model")),
        model_digest=str(model.get("digest", "")) if isinstance(model, Mapping) else "",
        task=_class_name(config.get("task")),
        baseline=_baseline(folder),
        directions=_directions(config.get("objective")),
        machine=str(versions.get("cpu", "")) if isinstance(versions, Mapping) else "",
    )


def _class_name(section: Any) -> str:
    target = section.get("_target_") if isinstance(section, Mapping) else None
    return str(target).rpartition(".")[2] if target else ""


def _directions(objective: Any) -> dict[str, str]:
    """Returns the direction of every measurement that the config names, by its bare name (`metric` included)."""
    directions: dict[str, str] = {}
    for direction in ("maximize", "minimize") if isinstance(objective, Mapping) else ():
        names = objective.get(direction)
        for name in [names] if isinstance(names, str) else names or []:
            directions[str(name)] = direction
    return directions


def _baseline(folder: Path) -> dict[str, float]:
    text = _text(folder, "summary.json")
    try:
        summary = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise _UnusableError(f"its summary.json is half-written or damaged: {error}") from error
    baseline = summary.get("baseline") if isinstance(summary, Mapping) else None
    baseline = baseline if isinstance(baseline, Mapping) else {}
    values = {str(Column.of(name)): value for name, value in numbers(baseline.get("metrics")).items()}
    costs = baseline.get("costs")
    for device, device_costs in costs.items() if isinstance(costs, Mapping) else ():
        values |= {str(Column.of(name, device)): value for name, value in numbers(device_costs).items()}
    return first_values(values)


def trials_of(text: str) -> dict[str, PastTrial]:
    """Returns the measured rows of a trials.csv by trial number; incomplete rows are left out."""
    header, rows = _table(text)
    if not {"number", "state"} <= set(header):
        raise _UnusableError("its trials.csv has no columns `number` and `state`")
    return {row["number"]: _trial(row) for row in rows if row["state"] in _MEASURED}


def _aliases(text: str | None, trials: Mapping[str, PastTrial]) -> Iterator[PastTrial]:
    """Yields the candidates that have the same file as a trial, with that trial's values."""
    header, rows = _table(text or "")
    for row in rows if "same_as" in header else ():
        if row["same_as"] in trials:
            yield PastTrial(_knobs(row), trials[row["same_as"]].values)


def _table(text: str) -> tuple[list[str], list[dict[str, str]]]:
    reader = csv.reader(io.StringIO(text, newline=""))
    header = next(reader, [])
    return header, [
        dict(zip(header, map(cell_text, row), strict=True)) for row in reader if len(row) == len(header)
    ]


def _knobs(row: Mapping[str, str]) -> dict[str, str]:
    return {name[5:]: cell for name, cell in row.items() if name.startswith("knob.") and cell != ""}


def _trial(row: Mapping[str, str]) -> PastTrial:
    values = {name: number(cell) for name, cell in row.items() if Column.find(name) is not None and cell}
    return PastTrial(_knobs(row), first_values({name: v for name, v in values.items() if v is not None}))


def _text(folder: Path, name: str) -> str | None:
    path = folder / name
    try:
        if path.stat().st_size > _MOST_BYTES[name]:
            raise _UnusableError(f"its {name} is larger than {_MOST_BYTES[name] // 2**20} MiB")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _UnusableError(f"its {name} cannot be read: {error}") from error


def _yaml(text: str) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # five times as fast, where libyaml is installed
    try:
        return yaml.load(text, Loader=loader)  # both loaders are safe
    except (yaml.YAMLError, RecursionError) as error:
        first_line = str(error).partition("\n")[0]
        raise _UnusableError(f"its config.yaml is half-written or damaged: {first_line}") from error
