"""The runner-up on a device, and in words why it is not the pick."""

from evaluators.column import Column
from search.record.results import StudyRecord, TrialRecord
from search.report.findings import numbers
from search.report.findings.figures import (
    Figure,
    costs,
    device_of,
    direction,
    figure,
    headline_metric,
    label,
    on_test,
)

_WORDS = {"bytes": ("smaller", "larger"), "_ms": ("faster", "slower"), "_us": ("faster", "slower")}
_SMALL = 15.0  # per cent: a difference that is not told as a ratio


def runner_up(results: StudyRecord, number: int, device: str | None) -> TrialRecord | None:
    """Returns the front's best other trial by the cost that decides on the device; None if there is none."""
    axis = deciding(results, device)
    if axis is None:
        return None
    sign = 1.0 if direction(results, axis) == "minimize" else -1.0
    others = [results.trial(n) for n in results.front if n != number]
    known = [t for t in others if axis in t.values()]
    return min(known, key=lambda t: sign * t.values()[axis], default=None)


def deciding(results: StudyRecord, device: str | None) -> str | None:
    """Returns the column that decides between good models: the device's first cost among the objectives, else another one."""
    own = [o for o in results.objectives if device is not None and device_of(o.column) == device]
    ranked = [o.column for o in [*(o for o in own if o.direction == "minimize"), *results.objectives[1:]]]
    return next(iter(ranked), None)


def why_not(results: StudyRecord, pick: TrialRecord, rival: TrialRecord, device: str | None) -> str:
    """Returns how the runner-up differs, e.g. `latency 1.2× slower (0.0171 ms against 0.0151 ms), the same validation top1`."""
    metric = headline_metric(results)
    axis = deciding(results, device)
    columns = [
        *([axis] if axis is not None else []),
        *([metric, on_test(metric)] if metric is not None else []),  # the search has chosen by the first
        *(costs(results, device) if device else ()),
        *(o.column for o in results.objectives),
    ]
    own = dict.fromkeys(c for c in columns if device_of(c) in (None, device))
    return ", ".join(filter(None, (_difference(pick, rival, c, _name(metric, c, pick)) for c in own)))


def _name(metric: str | None, column: str, record: TrialRecord) -> str:
    """Returns what a column is called: where the metric is known on two splits, with its split."""
    on_two = column == metric and on_test(column) in record.values()
    return f"validation {label(column)}" if on_two else label(column)


def _difference(pick: TrialRecord, rival: TrialRecord, column: str, name: str) -> str:
    ours, theirs = figure(pick.measurements, column), figure(rival.measurements, column)
    if ours is None or theirs is None:
        return ""
    shown = f"{theirs.text} against {ours.text}"
    if ours.text == theirs.text:
        return f"the same {name}"
    shown += _within(ours, theirs)
    if (device_of(column) or ours.unit == "bytes") and ours.value > 0 and theirs.value > 0:
        return f"{name} {_ratio(column, theirs.value / ours.value)} ({shown})"
    word = "higher" if theirs.value > ours.value else "lower"
    by = numbers.quantity(abs(theirs.value - ours.value), "pp" if ours.unit == "%" else ours.unit)
    return f"{name} {by} {word} ({shown})"


def _ratio(column: str, factor: float) -> str:
    """Returns by how much a cost is more or less: `1.4× slower`, `4.2 % smaller`."""
    name = Column.parse(column).name
    kind = next((words for end, words in _WORDS.items() if name.endswith(end)), ("lower", "higher"))
    word = kind[factor > 1]
    share = 100 * abs(factor - 1)
    return f"{share:.2g} % {word}" if share < _SMALL else f"{max(factor, 1 / factor):.2g}× {word}"


def _within(ours: Figure, theirs: Figure) -> str:
    ends = (ours.low, ours.high, theirs.low, theirs.high)
    if any(e is None for e in ends):
        return ""
    overlap = max(ours.low or 0.0, theirs.low or 0.0) <= min(ours.high or 0.0, theirs.high or 0.0)
    return "; the intervals overlap" if overlap else ""
