"""Trial records as JSON, and as rows of trials.csv."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, get_args

from evaluators.base import Measurement
from evaluators.column import Column
from search.record.results import State, TrialRecord
from spaces.candidate import Candidate
from spaces.errors import StudyError


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
    """The inverse of `record_to_json`.

    Raises:
        StudyError: The text is no record: a journal may be damaged, or come from elsewhere.
    """
    try:
        data = json.loads(text)
        record = TrialRecord(
            **{
                **data,
                "candidate": Candidate(data["candidate"]),
                "measurements": tuple(map(measurement_from_json, data["measurements"])),
            }
        )
        if not _is_whole(record):
            raise TypeError("a value has another type")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StudyError(f"the study's journal holds a damaged record of a trial: {error!r}") from error
    return record


def _is_whole(record: TrialRecord) -> bool:
    """Whether the values that everything else relies on have their types."""
    texts = [record.reason, *(t for m in record.measurements for t in (m.name, m.unit, m.source))]
    figures = [record.wall_s, *record.seconds.values(), *(m.value for m in record.measurements)]
    return (
        type(record.number) is int
        and record.number >= 0
        and record.state in get_args(State)
        and isinstance(record.details, Mapping)
        and all(isinstance(text, str) for text in texts)
        and all(m.device is None or isinstance(m.device, str) for m in record.measurements)
        and all(isinstance(figure, int | float) and not isinstance(figure, bool) for figure in figures)
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
