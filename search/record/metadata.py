"""What a study records about itself so that later ones can learn from its trials."""

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
_FIRST = "first_"  # a front member is timed again; all trials have the first timing


@dataclass(frozen=True)
class StudyMetadata:
    """What does not follow from a study's trials.

    Attributes:
        model: What people call the model.
        model_digest: Digest of the float ONNX file; empty if unknown.
        task: What people call the task.
        task_digest: Digest of the data that candidates are calibrated and judged on; empty if unknown.
        baseline: Column to the uncompressed model's value.
        units: Column to the unit of its values; a column that is not here has an unknown one.
        measured: Columns that were measured on a machine rather than computed.
        directions: Objective's column to `maximize` or `minimize`.
        defaults: Knob (`quantize.scheme`) to the value that its stage takes where the space does not mention it.
        descriptors: What is known of the model and the task as numbers.
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
        """Model and task in words."""
        return f"{self.model or 'a model'} ({self.task})" if self.task else self.model or "a model"

    def to_json(self) -> dict[str, Any]:
        """Returns what `from_json` reads: plain dicts, lists and scalars."""
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
        """Returns the facts as one line of JSON that fits an MLflow tag: without costs if there are too many."""
        whole = self.to_json()
        text = json.dumps(whole, separators=(",", ":"))
        if len(text) <= _MOST_TAG_CHARS:
            return text
        kept = {c: v for c, v in self.baseline.items() if c in self.directions or not Column.parse(c).is_cost}
        units = {c: u for c, u in self.units.items() if c in kept}
        measured = sorted(self.measured & kept.keys())
        return json.dumps({**whole, "baseline": kept, "units": units, "measured": measured})


def metadata_from_json(data: Any) -> StudyMetadata:
    """Reads what `StudyFacts.to_json` wrote; parts that are missing or of a wrong kind are unknown."""
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
    """Reads what `StudyFacts.to_tag` wrote; of a text that is damaged, nothing."""
    try:
        return metadata_from_json(json.loads(text))
    except (ValueError, RecursionError):
        return StudyMetadata()


def metadata_in(folder: Path) -> StudyMetadata | None:
    """Returns the facts that a study's config.yaml holds; None if there are none."""
    try:
        record = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    found = record.get("knowledge") if isinstance(record, Mapping) else None
    return metadata_from_json(found) if found else None


def baseline_metadata(measurements: Iterable[Measurement]) -> dict[str, Any]:
    """Returns the attributes `baseline`, `units` and `measured` for an uncompressed model's measurements.

    Ends of intervals and what the test split says are left out.
    """
    kept = [m for m in measurements if math.isfinite(m.value) and not _is_beside(m.name)]
    return {
        "baseline": {m.column: float(m.value) for m in kept},
        "units": {m.column: m.unit for m in kept},
        "measured": frozenset(m.column for m in kept if m.source == "measured" and m.device is not None),
    }


def first_values(values: Mapping[str, float]) -> dict[str, float]:
    """Puts the first timings in the place of later ones, which only models on the front have."""
    found = dict(values)
    for text, value in values.items():
        column = Column.parse(text)
        if column.name.startswith(_FIRST):
            found[str(column.named(column.name.removeprefix(_FIRST)))] = value
    return found


def _is_beside(name: str) -> bool:
    return name.startswith(("test_", _FIRST)) or name.endswith(("_low", "_high", "_iqr_ms"))


def _plain(value: Value) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _texts(value: Any) -> dict[str, str]:
    found = value if isinstance(value, Mapping) else {}
    return {str(k): v for k, v in found.items() if isinstance(v, str)}


def numbers(value: Any) -> dict[str, float]:
    """Returns the finite numbers of a mapping; nothing for what is no mapping."""
    found = value if isinstance(value, Mapping) else {}
    return {
        str(k): float(v)
        for k, v in found.items()
        if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)
    }


def _values(value: Any) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for key, each in value.items() if isinstance(value, Mapping) else ():
        try:
            found[str(key)] = freeze(each)
        except TypeError:
            continue  # no value that a knob can have
    return found
