"""Effects of single settings: how objectives change over pairs of trials that differ in one knob only."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.record.results import StudyRecord, TrialRecord
from search.report.findings import numbers
from search.report.findings.noise import is_above_noise
from spaces.candidate import Value, value_text

_MOST_VALUES = 8
_MOST_OBJECTIVES = 5


@dataclass(frozen=True)
class Difference:
    """Mean difference of one column between a value of a knob and the reference value.

    Attributes:
        mean: Mean of value minus reference, in the column's unit.
        low: Lower end of the 95 % t interval; None with a single pair.
        high: Upper end.
    """

    mean: float
    low: float | None
    high: float | None

    @property
    def is_clear(self) -> bool:
        """Whether the interval is on one side of 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Comparison:
    """One value of a knob compared with a reference value.

    Attributes:
        knob: The knob's path.
        value: The value, as text.
        reference: The value that it is compared with, as text.
        is_paired: Whether the trials differ in this knob only; otherwise group means are compared.
        counts: Number of pairs, or of trials with the value and with the reference.
        differences: Column to its mean difference.
    """

    knob: str
    value: str
    reference: str
    is_paired: bool
    counts: tuple[int, ...]
    differences: dict[str, Difference]


def comparisons(results: StudyRecord) -> list[Comparison]:
    """Compares, for each knob, every value with the best trial's (else the most frequent one).

    Objectives whose values differ by no more than their noise are left out.
    """
    columns = [o.column for o in results.objectives if is_above_noise(results.trials, o.column)]
    columns = columns[:_MOST_OBJECTIVES]
    if not columns:
        return []
    measured = [t for t in results.trials if all(np.isfinite(t.values().get(c, np.nan)) for c in columns)]
    compared = []
    for knob in dict.fromkeys(path for t in measured for path in t.candidate):
        groups = _groups(results, measured, knob)
        reference = _reference(results, groups, knob)
        for value in sorted(groups.keys() - {reference}):
            is_paired, (counts, differences) = compare(groups[value], groups[reference], knob, columns)
            per_layer = "[" in knob  # the effect of one layer among many shows only in pairs
            if is_paired or not per_layer:
                compared.append(Comparison(knob, value, reference, is_paired, counts, differences))
    return sorted(compared, key=lambda c: not c.is_paired)


def _groups(results: StudyRecord, trials: Sequence[TrialRecord], knob: str) -> dict[str, list[TrialRecord]]:
    """Groups trials by the knob's value; a continuous knob is divided at its median."""
    active = [t for t in trials if knob in t.candidate]
    values = {value_text(t.candidate[knob]) for t in active}
    groups: dict[str, list[TrialRecord]] = defaultdict(list)
    if len(values) <= _MOST_VALUES and results.knobs.get(knob, (0,)):
        for record in active:
            groups[value_text(record.candidate[knob])].append(record)
    elif all(_is_number(t.candidate[knob]) for t in active):
        middle = float(np.median([_number(t.candidate[knob]) for t in active]))
        for record in active:
            side = "≤" if _number(record.candidate[knob]) <= middle else ">"
            groups[f"{side} {numbers.plain(middle)}"].append(record)
    return dict(groups)


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Value) -> float:
    assert isinstance(value, int | float)
    return float(value)


def _reference(results: StudyRecord, groups: dict[str, list[TrialRecord]], knob: str) -> str:
    for value, records in groups.items():
        if results.best is not None and any(r.number == results.best for r in records):
            return value
    counted = Counter({value: len(records) for value, records in groups.items()})
    return counted.most_common(1)[0][0] if counted else ""


Compared = tuple[tuple[int, ...], dict[str, Difference]]


def compare(
    ours: Sequence[TrialRecord], theirs: Sequence[TrialRecord], knob: str, columns: Sequence[str]
) -> tuple[bool, Compared]:
    """Compares trials of two groups that differ in a knob: in pairs, or by group means where there are no pairs.

    Args:
        ours: Trials of the one group, at least one.
        theirs: Trials of the other, at least one.
        knob: The knob's path.
        columns: Columns that all of them have.

    Returns:
        Whether pairs were compared; the number of pairs, or of trials in either group; and by column the mean of
        `ours` minus `theirs`.
    """
    paired = _paired(ours, theirs, knob, columns)
    return (True, paired) if paired is not None else (False, _unpaired(ours, theirs, columns))


def _paired(
    ours: Sequence[TrialRecord], theirs: Sequence[TrialRecord], knob: str, columns: Sequence[str]
) -> Compared | None:
    def rest(record: TrialRecord) -> frozenset[tuple[str, Value]]:
        return frozenset((k, v) for k, v in record.candidate.items() if k != knob)

    sides: dict[frozenset[tuple[str, Value]], tuple[list[TrialRecord], list[TrialRecord]]]
    sides = defaultdict(lambda: ([], []))
    for side, records in enumerate((ours, theirs)):
        for record in records:
            sides[rest(record)][side].append(record)
    pairs = [pair for pair in sides.values() if all(pair)]
    if not pairs:
        return None
    differences = {}
    for column in columns:
        # A knob that is divided at its median may have several trials on a side: their mean counts once.
        origin = theirs[0].values()[column]
        means = [[_values(side, column, origin).mean() for side in pair] for pair in pairs]
        gaps = np.array([a - b for a, b in means])
        error = float(gaps.std(ddof=1)) / np.sqrt(len(gaps)) if len(gaps) > 1 else None
        differences[column] = _with_interval(float(gaps.mean()), error, len(gaps) - 1)
    return (len(pairs),), differences


def _values(records: Sequence[TrialRecord], column: str, origin: float) -> NDArray[np.float64]:
    """Returns a column's values less `origin`, so that the mean of equal values is exact; what rounding leaves is 0."""
    values = np.array([r.values()[column] for r in records], np.float64)
    return np.where(np.isclose(values, origin, rtol=1e-12, atol=0.0), 0.0, values - origin)


def _unpaired(ours: Sequence[TrialRecord], theirs: Sequence[TrialRecord], columns: Sequence[str]) -> Compared:
    """Compares group means; interval of Welch, The generalization of Student's problem, Biometrika 34 (1947)."""
    differences = {}
    for column in columns:
        origin = theirs[0].values()[column]
        a, b = _values(ours, column, origin), _values(theirs, column, origin)
        error, freedom = None, 0.0
        if len(a) > 1 and len(b) > 1:
            parts = np.array([a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)])
            error = float(np.sqrt(parts.sum()))
            weights = np.square(parts) / np.array([len(a) - 1, len(b) - 1])
            freedom = float(np.square(parts.sum()) / weights.sum()) if weights.sum() > 0 else 1.0
        differences[column] = _with_interval(float(a.mean() - b.mean()), error, freedom)
    return (len(ours), len(theirs)), differences


def _with_interval(mean: float, error: float | None, freedom: float) -> Difference:
    if error is None:
        return Difference(mean, None, None)
    from scipy.stats import t

    half = float(t.ppf(0.975, freedom)) * error
    return Difference(mean, mean - half, mean + half)
