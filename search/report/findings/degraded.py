"""Whether calibrating on degraded images helped, as a sentence computed from the study's trials."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from evaluators.column import Column
from search.record.results import StudyRecord, TrialRecord
from search.report.findings import numbers
from search.report.findings.figures import name_label, unit_of
from search.report.findings.settings import Difference, compare

KNOB = "degraded_share"
ROBUSTNESS = "robustness_drop_"  # prefix of the names of robustness measurements
_SUBJECT = "Calibrating on degraded images"


def verdict(results: StudyRecord) -> str:
    """Returns a sentence on the knob `degraded_share`; empty if the study does not have it.

    Trials that differ in nothing else are compared in pairs; without pairs, group means are compared. The knob is
    said to help only if the whole 95 % interval of the change is below 0.
    """
    knob = next((path for path in results.knobs if path.rpartition(".")[2] == KNOB), None)
    if knob is None:
        return ""
    trials = _trials(results, knob)
    columns = [c for c in (_robustness(results, trials), _clean(trials)) if c]
    measured = [t for t in trials if all(np.isfinite(t.values().get(c, np.nan)) for c in columns)]
    with_some, with_none = (
        [t for t in measured if (t.candidate[knob] != 0) == some] for some in (True, False)
    )
    if not columns or not with_some or not with_none:
        return f"Whether calibrating on degraded images helps cannot be determined: {_missing(with_some, with_none)}."
    is_paired, (counts, differences) = compare(with_some, with_none, knob, columns)
    changes = [_change(results, column, differences[column]) for column in columns]
    over = (
        f"over {numbers.counted(counts[0], 'pair')} of trials that differ in nothing else"
        if is_paired
        else f"between {counts[0]} trials with and {counts[1]} without, which also differ in other knobs"
    )
    evidence = f"{over}, {numbers.listing(changes)} (mean change, 95 % t interval)"
    return f"{_SUBJECT} {_judgement(columns, differences)}: {evidence}."


def _trials(results: StudyRecord, knob: str) -> list[TrialRecord]:
    """Returns the trials that have the knob, and as trials the proposals whose file equals that of a trial."""
    aliases = [replace(results.trial(a.same_as), candidate=a.candidate) for a in results.aliases]
    by_digest = {t.candidate.digest: t for t in (*aliases, *results.trials)}
    return [t for t in by_digest.values() if knob in t.candidate]


def _robustness(results: StudyRecord, trials: Sequence[TrialRecord]) -> str | None:
    """Returns the robustness column of an objective or constraint, else the mean over the degradations."""
    limits_and_objectives = [o.column for o in results.objectives] + [c.column for c in results.constraints]
    preferred = [*filter(_is_drop, limits_and_objectives), str(Column.of(f"{ROBUSTNESS}mean"))]
    return next((c for c in preferred if any(c in t.values() for t in trials)), None)


def _clean(trials: Sequence[TrialRecord]) -> str | None:
    """Returns the task's metric: the metric that has a column for its drop from the float model."""
    columns = dict.fromkeys(c for t in trials for c in t.values() if not Column.parse(c).is_cost)
    return next((c for c in columns if f"{c}_drop" in columns), None)


def _is_drop(column: str) -> bool:
    parsed = Column.parse(column)
    return not parsed.is_cost and parsed.name.startswith(ROBUSTNESS)


def _missing(with_some: Sequence[TrialRecord], with_none: Sequence[TrialRecord]) -> str:
    if not with_some and not with_none:
        return "no trial was evaluated"
    return f"no trial was evaluated {'with' if not with_some else 'without'} them"


def _change(results: StudyRecord, column: str, difference: Difference) -> str:
    unit = unit_of(results, column)
    metric = name_label(Column.parse(column).name.removeprefix(ROBUSTNESS))
    name = f"the relative drop on degraded images ({metric})" if _is_drop(column) else f"clean {metric}"
    if difference.low is None or difference.high is None:
        return f"{name} changed by {numbers.signed(difference.mean, unit)}"
    mean, interval = numbers.with_bounds(
        difference.mean, difference.low, difference.high, unit, is_change=True
    )
    return f"{name} changed by {mean} {interval}"


def _judgement(columns: Sequence[str], differences: dict[str, Difference]) -> str:
    first = differences[columns[0]]
    if not _is_drop(columns[0]):
        return "was evaluated on clean images only (evaluator=robustness adds degraded ones)"
    if first.low is None or first.high is None:
        return "cannot be assessed from a single pair"
    if first.low > 0:
        return "did not help, it made things worse"
    if first.high >= 0:
        return "did not help"
    clean = differences[columns[1]] if len(columns) > 1 else None
    costs = clean is not None and clean.high is not None and clean.high < 0
    return "helped, at a price on clean images" if costs else "helped"
