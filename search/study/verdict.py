"""Turns a worker's result into a trial record: decides its state from the objectives and constraints."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from evaluators.column import Column
from search.record.redact import redact_text
from search.record.results import Constraint, Objective, State, TrialRecord
from search.trials.trial import TrialResult

_STATES: dict[str, State] = {"failed": "failed", "pruned": "pruned"}


def verdict(
    result: TrialResult, number: int, objectives: Sequence[Objective], constraints: Sequence[Constraint]
) -> TrialRecord:
    """Returns the record of a finished trial, with its state and the reason for it.

    Args:
        result: What the worker returned.
        number: The trial's number.
        objectives: Each must be measured and finite; otherwise the trial failed.
        constraints: Each must be measured (otherwise the trial failed) and hold (otherwise it is infeasible, whatever
            else is absent: a device that does not take the file has no latency for it).
    """
    record = TrialRecord(
        number=number,
        state=_STATES.get(result.outcome, "complete"),
        reason=redact_text(result.reason),  # e.g. of a download with the address that it used
        candidate=result.candidate,
        measurements=result.measurements,
        details=result.details,
        seconds=result.seconds,
        wall_s=result.wall_s,
        artifact_digest=result.artifact_digest,
    )
    return record if record.state != "complete" else judged(record, objectives, constraints)


def judged(
    record: TrialRecord, objectives: Sequence[Objective], constraints: Sequence[Constraint]
) -> TrialRecord:
    """Returns the record of a measured trial with its state and the reason for it, by its measurements."""
    values = record.values()
    because = record.details.get("because", {})
    breaches = [
        _breach(c, values[c.column], because)
        for c in constraints
        if math.isfinite(values.get(c.column, math.nan)) and c.excess(values[c.column]) > 0
    ]
    if breaches:
        return replace(record, state="infeasible", reason="; ".join(breaches))
    missing = _missing(record, [*(o.column for o in objectives), *(c.column for c in constraints)])
    return replace(record, state="failed" if missing else "complete", reason=missing)


def _missing(record: TrialRecord, wanted: Sequence[str]) -> str:
    values = record.values()
    for column in wanted:
        if not math.isfinite(values.get(column, math.nan)):
            why = record.details.get("because", {}).get(column)
            reason = f": {why}" if why else ""
            return f"{column} is {values.get(column, 'absent')}, but the study needs it{reason}"
    return ""


def _breach(constraint: Constraint, value: float, because: Mapping[str, str]) -> str:
    side = "above" if constraint.kind == "max" else "below"
    name = Column.parse(constraint.column).short
    margin = f" with its margin of {constraint.margin:.6g}" if constraint.margin else ""
    why = because.get(constraint.column, "")
    return (
        f"{constraint.name}: {name} is {value:.6g}, {constraint.excess(value):.4g} {side} the limit of "
        f"{constraint.limit:.6g}{margin}" + (f" ({why})" if why else "")
    )
