"""Trial records as JSON, and as rows of trials.csv."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from evaluators.base import Measurement
from evaluators.column import Column
from search.record.results import TrialRecord
from spaces.candidate import Candidate


def measurement_to_json(m: Measurement) -> list[Any]:
    """Returns a measurement as a list; a value that is not finite, which JSON lacks, becomes null."""
    return [m.name, m.value if math.isfinite(m.value) else None, m.unit, m.source, m.device]


def measurement_from_json(data: Sequence[Any]) -> Measurement:
    """The inverse of `measurement_to_json`."""
    name, value, unit, source, device = data
    return Measurement(name, math.nan if value is None else value, unit, source, device)


def record_to_json(record: TrialRecord) -> str:
    """Returns the record as JSON text."""
    return json.dumps(
        {
            "number": record.number,
            "state": record.state,
            "reason": record.reason,
            "candidate": dict(record.candidate),
            "measurements": [measurement_to_json(m) for m in record.measurements],
            "details": record.details,
            "seconds": dict(record.seconds),
            "wall_s": record.wall_s,
            "artifact_digest": record.artifact_digest,
        },
        default=float,  # numpy scalars in details
    )


def record_from_json(text: str) -> TrialRecord:
    """The inverse of `record_to_json`."""
    data = json.loads(text)
    return TrialRecord(
        **{
            **data,
            "candidate": Candidate(data["candidate"]),
            "measurements": tuple(map(measurement_from_json, data["measurements"])),
        }
    )


def rows(trials: Iterable[TrialRecord], knobs: Iterable[str]) -> tuple[list[str], list[dict[str, str]]]:
    """Returns the columns of trials.csv and a row per trial.

    Args:
        trials: The trials, ordered by number.
        knobs: Every knob path of the space, so that a knob that was never active has a column too.
    """
    trials = list(trials)
    measured = dict.fromkeys(chain.from_iterable(t.values() for t in trials))
    steps = dict.fromkeys(chain.from_iterable(t.seconds for t in trials))
    columns = [
        "number", "state", "reason",
        *(f"knob.{path}" for path in knobs),
        *sorted(measured, key=lambda c: Column.parse(c).is_cost),
        *(f"seconds.{step}" for step in steps),
        "wall_s",
    ]  # fmt: skip
    return columns, [t.cells for t in trials]


def split_values(measurements: Iterable[Measurement]) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Returns metrics by name, and costs by device and name, as in summary.json."""
    metrics: dict[str, float] = {}
    costs: dict[str, dict[str, float]] = {}
    for m in measurements:
        target = metrics if m.device is None else costs.setdefault(m.device, {})
        target[m.name] = m.value
    return metrics, costs


def finite(data: Any) -> Any:
    """Replaces numbers that are not finite, which JSON does not have, by null, recursively."""
    if isinstance(data, float) and not math.isfinite(data):
        return None
    if isinstance(data, Mapping):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return data
