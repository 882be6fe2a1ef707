"""The metadata that a study records so that later studies can learn from its trials."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from evaluators.base import Measurement
from evaluators.column import Column
from spaces.candidate import Value, freeze

_MOST_TAG_CHARS = 7500  # MLflow cuts a tag at 8,000
_FIRST = "first_"  # prefix of a first timing: models on the front are timed again, all others only once


@dataclass(frozen=True)
class StudyMetadata:
    """A study's model, task, baseline and settings, which its trials do not contain.

    Attributes:
        model: Name of the model, for messages.
        model_digest: Digest of the float ONNX file; empty if unknown.
        task: Name of the task, for messages.
        task_digest: Digest of the data that candidates are calibrated and evaluated on; empty if unknown.
        baseline: Column to the uncompressed model's value.
        units: Column to the unit of its values; the unit of a column without an entry is unknown.
        measured: Columns that were measured on a machine rather than computed.
        directions: Column of an objective to `maximize` or `minimize`.
        defaults: Knob (`quantize.scheme`) to the value that its stage takes where the space does not mention it.
        descriptors: Numeric descriptors of the model and the task, by name.
        machine: CPU that the study ran on; empty if unknown.
    """

    model: str = ""
    model_digest: str = ""
    task: str = ""
    task_digest: str = ""
    baseline: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    measured: frozenset[str] = frozenset()
    directions: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Value] = field(default_factory=dict)
    descriptors: Mapping[str, float] = field(default_factory=dict)
    machine: str = ""

    @property
    def label(self) -> str:
        """Model and task as text."""
        return f"{self.model or 'a model'} ({self.task})" if self.task else self.model or "a model"

    def to_json(self) -> dict[str, Any]:
        """Returns the metadata as dicts, lists and scalars, which `metadata_from_json` reads."""
        return {
            "model": self.model,
            "model_digest": self.model_digest,
            "task": self.task,
            "task_digest": self.task_digest,
            "baseline": dict(self.baseline),
            "units": dict(self.units),
            "measured": sorted(self.measured),
            "directions": dict(self.directions),
            "defaults": {knob: _plain(value) for knob, value in self.defaults.items()},
            "descriptors": dict(self.descriptors),
            "machine": self.machine,
        }

    def to_tag(self) -> str:
        """Returns the metadata as one line of JSON that fits an MLflow tag: without costs if too long."""
        whole = self.to_json()
        text = json.dumps(whole, separators=(",", ":"))
        if len(text) <= _MOST_TAG_CHARS:
            return text
        kept = {c: v for c, v in self.baseline.items() if c in self.directions or not Column.parse(c).is_cost}
        units = {c: u for c, u in self.units.items() if c in kept}
        measured = sorted(self.measured & kept.keys())
        return json.dumps({**whole, "baseline": kept, "units": units, "measured": measured})


def metadata_from_json(data: Any) -> StudyMetadata:
    """Reads the output of `StudyMetadata.to_json`; missing parts and wrong types become unknown."""
    if not isinstance(data, Mapping):
        return StudyMetadata()
    return StudyMetadata(
        **{key: _text(data.get(key)) for key in ("model", "model_digest", "task", "task_digest", "machine")},
        baseline=numbers(data.get("baseline")),
        units=_texts(data.get("units")),
        measured=frozenset(map(str, _list(data.get("measured")))),
        directions=_texts(data.get("directions")),
        defaults=_values(data.get("defaults")),
        descriptors=numbers(data.get("descriptors")),
    )


def metadata_from_tag(text: str) -> StudyMetadata:
    """Reads the output of `StudyMetadata.to_tag`; a damaged text gives empty metadata."""
    try:
        return metadata_from_json(json.loads(text))
    except (ValueError, RecursionError):
        return StudyMetadata()


def metadata_in(folder: Path) -> StudyMetadata | None:
    """Returns the metadata in the config.yaml of a study folder; None if there are none."""
    try:
        record = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    section = record.get("knowledge") if isinstance(record, Mapping) else None
    return metadata_from_json(section) if section else None


def baseline_metadata(measurements: Iterable[Measurement]) -> dict[str, Any]:
    """Returns the attributes `baseline`, `units` and `measured` for an uncompressed model's measurements.

    Ends of intervals, first timings and measurements on the test split are left out.
    """
    kept = [m for m in measurements if math.isfinite(m.value) and not _is_auxiliary(m.name)]
    return {
        "baseline": {m.column: float(m.value) for m in kept},
        "units": {m.column: m.unit for m in kept},
        "measured": frozenset(m.column for m in kept if m.source == "measured" and m.device is not None),
    }


def first_values(values: Mapping[str, float]) -> dict[str, float]:
    """Returns the values, with later timings (of models on the front only) replaced by the first ones."""
    replaced = dict(values)
    for text, value in values.items():
        column = Column.parse(text)
        if column.name.startswith(_FIRST):
            replaced[str(column.named(column.name.removeprefix(_FIRST)))] = value
    return replaced


def _is_auxiliary(name: str) -> bool:
    return name.startswith(("test_", _FIRST)) or name.endswith(("_low", "_high", "_iqr_ms"))


def _plain(value: Value) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _texts(value: Any) -> dict[str, str]:
    mapping = value if isinstance(value, Mapping) else {}
    return {str(k): v for k, v in mapping.items() if isinstance(v, str)}


def numbers(value: Any) -> dict[str, float]:
    """Returns the finite numbers of a mapping; an empty dict if `value` is not a mapping."""
    mapping = value if isinstance(value, Mapping) else {}
    return {
        str(k): float(v)
        for k, v in mapping.items()
        if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)
    }


def _values(value: Any) -> dict[str, Value]:
    knob_values: dict[str, Value] = {}
    for key, each in value.items() if isinstance(value, Mapping) else ():
        try:
            knob_values[str(key)] = freeze(each)
        except TypeError:
            continue  # not a type that a knob's value can have
    return knob_values
