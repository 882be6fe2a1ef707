"""Reads figures out of Results: a column's value, its interval, its change against the baseline, its source.

Evaluators report uncertainty as companion measurements: `<name>_low` and `<name>_high` bound `<name>`; `<name>_drop`
is how much worse the candidate is than the baseline, whichever way is better, with bounds of its own; `<name>_partial` is
the estimate at which a trial was pruned. Companions appear with their measurement, not as rows of their own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from evaluators.base import Measurement
from evaluators.column import Column
from search.record.results import Constraint, StudyRecord, TrialRecord
from search.report.findings import numbers

_UNIT_SUFFIXES = ("_ms", "_us", "_s", "_uj", "_mj", "_j", "_db", "_mw", "_pct")
_COMPANIONS = ("_low", "_high", "_drop", "_partial", "_partial_error", "_partial_images")
_OF_FLOAT = ("agreement", "output_sqnr_db")
_ACRONYMS = {"sram": "SRAM", "sqnr": "SQNR", "macs": "MACs", "ram": "RAM", "kl": "KL", "onnx": "ONNX"}


@dataclass(frozen=True)
class Figure:
    """A value with its unit, source and (where an evaluator gave one) interval."""

    value: float
    unit: str
    source: str
    low: float | None = None
    high: float | None = None
    is_change: bool = False

    @property
    def text(self) -> str:
        """The value with its unit, and as many decimals as its interval."""
        if self.low is not None and self.high is not None:
            return self._pair(self.low, self.high)[0]
        return (numbers.signed if self.is_change else numbers.quantity)(self.value, self.unit)

    @property
    def interval(self) -> str:
        """The interval as text; empty if there is none."""
        if self.low is None or self.high is None:
            return ""
        return self._pair(self.low, self.high)[1]

    def _pair(self, low: float, high: float) -> tuple[str, str]:
        return numbers.with_bounds(self.value, low, high, self.unit, is_change=self.is_change)

    @property
    def full(self) -> str:
        """Value and interval."""
        return f"{self.text} {self.interval}".rstrip()


def figure(measurements: Iterable[Measurement], column: str) -> Figure | None:
    """Returns one column with its interval, or None if it was not measured."""
    by_column = {m.column: m for m in measurements}
    if (measured := by_column.get(column)) is None:
        return None
    low, high = by_column.get(f"{column}_low"), by_column.get(f"{column}_high")
    if low is None or high is None:
        return Figure(measured.value, measured.unit, measured.source)
    return Figure(measured.value, measured.unit, measured.source, low.value, high.value)


def estimated(results: StudyRecord, record: TrialRecord, column: str) -> str:
    """Returns a pruned trial's estimate with its 95 % interval, e.g. `≈ 91.25 % [90.27, 92.23]`, or nothing."""
    estimate = record.estimate(column) if record.state == "pruned" else None
    if estimate is None or column in record.values():
        return ""
    unit = unit_of(results, column) or unit_of(results, f"{column}_partial")
    low, high = (estimate[0] + sign * 1.96 * estimate[1] for sign in (-1, 1))
    return "≈ " + " ".join(numbers.with_bounds(estimate[0], low, high, unit))


def change(results: StudyRecord, record: TrialRecord, column: str) -> Figure | None:
    """Returns candidate minus baseline, with the paired interval of `<column>_drop` where there is one."""
    drop = figure(record.measurements, f"{column}_drop")
    if drop is not None:
        sign = -1.0 if direction(results, column) == "maximize" else 1.0
        known = [sign * end for end in (drop.low, drop.high) if end is not None]
        low, high = sorted(known) if len(known) == 2 else (None, None)
        now = figure(record.measurements, column)
        unit = now.unit if now else drop.unit
        return Figure(sign * drop.value, unit, drop.source, low, high, is_change=True)
    before, after = figure(results.baseline, column), figure(record.measurements, column)
    if before is None or after is None:
        return None
    return Figure(after.value - before.value, after.unit, after.source, is_change=True)


def is_companion(column: str, columns: Iterable[str]) -> bool:
    """Returns whether a column only qualifies another one (a bound, a drop, an estimate)."""
    known = set(columns)
    for suffix in _COMPANIONS:
        stem = column.removesuffix(suffix)
        if stem != column and (stem in known or stem.removesuffix("_drop") in known):
            return True
    return False


def columns(results: StudyRecord) -> tuple[str, ...]:
    """Returns every column that the baseline or a trial has, objectives first, without companions."""
    present = dict.fromkeys(o.column for o in results.objectives)
    for measurements in (results.baseline, *(t.measurements for t in results.trials)):
        present.update(dict.fromkeys(m.column for m in measurements))
    return tuple(c for c in present if not is_companion(c, present))


def device_of(column: str) -> str | None:
    """Returns the device of a cost column; None for a metric."""
    return Column.parse(column).device


def devices(results: StudyRecord) -> tuple[str, ...]:
    """Returns the devices of the study, those with a pick first."""
    named = dict.fromkeys(p.device for p in results.picks)
    named.update(dict.fromkeys(d for d in map(device_of, columns(results)) if d))
    return tuple(named)


def costs(results: StudyRecord, device: str) -> tuple[str, ...]:
    """Returns the main costs on a device: its objectives, else its constraints, else its first two costs."""
    of_device = [c for c in columns(results) if device_of(c) == device]
    for wanted in ([o.column for o in results.objectives], [c.column for c in results.constraints]):
        chosen = [c for c in of_device if c in wanted]
        if chosen:
            return tuple(chosen)
    return tuple(of_device[:2])


def headline_metric(results: StudyRecord) -> str | None:
    """Returns the metric to show first: the first objective that is a metric, else any metric; None without."""
    ranked = [o.column for o in results.objectives] + list(columns(results))
    return next((c for c in ranked if _is_score(c)), None)


def unit_of(results: StudyRecord, column: str) -> str:
    """Returns the unit of a column; empty if no measurement has it."""
    for measurements in (results.baseline, *(t.measurements for t in results.trials)):
        for measurement in measurements:
            if measurement.column == column:
                return measurement.unit
    return ""


def sources_of(results: StudyRecord, column: str) -> tuple[str, ...]:
    """Returns the sources of a column's values: one, unless several evaluators measured it."""
    groups = (results.baseline, *(t.measurements for t in results.trials))
    return tuple(dict.fromkeys(m.source for group in groups for m in group if m.column == column))


def label(column: str, *, with_device: bool = False) -> str:
    """Returns a column's name as it is shown: `peak_sram_bytes` on any device becomes `peak SRAM size`."""
    parsed = Column.parse(column)
    text = name_label(parsed.name)
    return f"{text} on {parsed.device}" if with_device and parsed.device else text


def split_label(results: StudyRecord, column: str, *, with_device: bool = False) -> str:
    """Returns `label`, with the split that a metric was computed on: `validation top1`, `test top1`."""
    text = label(column, with_device=with_device)
    return f"validation {text}" if is_on_validation(results, column) else text


def is_on_validation(results: StudyRecord, column: str) -> bool:
    """Whether a column is a metric of the search's own split: not a cost, a size or a metric on the test split.

    A study of a table has no splits.
    """
    if not _is_score(column) or Column.parse(column).name.startswith("test_"):
        return False
    task = results.config.get("task")
    return any(m.column == on_test(column) for m in results.baseline) or (
        isinstance(task, Mapping) and "_target_" in task
    )


def on_test(column: str) -> str:
    """Returns the column of a metric on the test split."""
    parsed = Column.parse(column)
    return str(parsed.named(f"test_{parsed.name}"))


def is_of_float(column: str) -> bool:
    """Whether a column compares a model with the float model, for which it is trivial: agreement, SQNR of the outputs."""
    return Column.parse(column).name.removeprefix("test_") in _OF_FLOAT


def name_label(name: str) -> str:
    """Returns a measurement's name as it is shown, without the unit at its end."""
    for suffix in _UNIT_SUFFIXES:
        name = name.removesuffix(suffix) or name
    if name.endswith("_bytes"):
        name = name.removesuffix("_bytes") + " size"
    return " ".join(_ACRONYMS.get(word, word) for word in name.replace("_", " ").split())


def direction(results: StudyRecord, column: str) -> str:
    """Returns the objective's direction; of a metric that its drops show, else `maximize` for metrics and `minimize` for others."""
    for objective in results.objectives:
        if objective.column == column:
            return objective.direction
    if not _is_score(column):
        return "minimize"
    return "minimize" if _is_better_when_lower(results, column) else "maximize"


def _is_better_when_lower(results: StudyRecord, column: str) -> bool:
    """Whether a metric that rose counts as a drop, or one that fell as none."""
    before = {m.column: m.value for m in results.baseline}.get(column)
    for trial in results.trials:
        values = trial.values()
        if before is None or column not in values or f"{column}_drop" not in values:
            continue
        product = (values[column] - before) * values[f"{column}_drop"]
        if product != 0:
            return product > 0
    return False


def _is_score(column: str) -> bool:
    """Whether a column is a quality metric rather than a cost or a size."""
    return not Column.parse(column).is_cost and not column.endswith("_bytes")


def measured(results: StudyRecord, column: str, states: Sequence[str] = ()) -> list[TrialRecord]:
    """Returns the trials that have a column, optionally of some states only."""
    return [t for t in results.trials if column in t.values() and (not states or t.state in states)]


def constraint_text(results: StudyRecord, constraint: Constraint) -> str:
    """Returns e.g. `at most 64 KiB less a margin of 6 KiB`."""
    unit = unit_of(results, constraint.column)
    at_most = constraint.kind == "max"
    text = f"{'at most' if at_most else 'at least'} {numbers.quantity(constraint.limit, unit)}"
    if not constraint.margin:
        return text
    return f"{text} {'less' if at_most else 'plus'} a margin of {numbers.quantity(constraint.margin, unit)}"
