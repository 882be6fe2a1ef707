"""The results of a study as sentences and rows, which the page, the terminal and the tracker show."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluators.column import Column
from search.record.results import StudyRecord, TrialRecord
from search.report.findings import numbers
from search.report.findings.figures import (
    Figure,
    change,
    columns,
    constraint_text,
    costs,
    device_of,
    figure,
    headline_metric,
    label,
)
from search.report.findings.misses import misses
from spaces.candidate import value_text

# more devices than these get a table in the terminal, and a sentence per model instead of per device
MANY_DEVICES = 3
_FILE_BYTES, _PACKED_BYTES = (str(Column.of(name)) for name in ("file_bytes", "packed_bytes"))
# not compared with the baseline: they repeat the row of the latency; trials.csv has them
_DETAILS = ("first_", "latency_float_", "latency_iqr_", "speedup")


@dataclass(frozen=True)
class Row:
    """One measurement of the baseline and of a trial.

    Attributes:
        column: Column of trials.csv.
        before: The baseline's figure; None if it lacks one.
        after: The trial's figure; None if it lacks one.
        difference: A signed change for metrics, a ratio (`3.9× smaller`) for costs; may be empty.
        limits: The constraints on this column, as text.
    """

    column: str
    before: Figure | None
    after: Figure | None
    difference: str
    limits: str


def comparison(results: StudyRecord, number: int, device: str | None) -> list[Row]:
    """Compares one trial with the baseline: its metrics, and its costs on `device` (on all devices if None)."""
    record, rows = results.trial(number), []
    for column in columns(results):
        if device is not None and device_of(column) not in (None, device):
            continue
        if Column.parse(column).name.startswith(_DETAILS):
            continue
        if column == _PACKED_BYTES and record.values().get(column) == record.values().get(_FILE_BYTES):
            continue
        before, after = figure(results.baseline, column), figure(record.measurements, column)
        if before is not None or after is not None:
            rows.append(
                Row(column, before, after, _difference(results, record, column), _limits(results, column))
            )
    return rows


def _difference(results: StudyRecord, record: TrialRecord, column: str) -> str:
    before, after = figure(results.baseline, column), figure(record.measurements, column)
    is_cost = Column.parse(column).is_cost or (after is not None and after.unit == "bytes")
    if is_cost and before is not None and after is not None:
        return numbers.ratio(column, _float_latency(record, column) or before.value, after.value) or ""
    changed = change(results, record, column)
    return changed.full if changed else ""


def _float_latency(record: TrialRecord, column: str) -> float | None:
    """Returns the float model's latency that was timed in turns with this trial's; None if it was not."""
    parsed = Column.parse(column)
    if parsed.name != "latency_ms":
        return None
    return record.values().get(str(parsed.named("latency_float_ms")))


def _limits(results: StudyRecord, column: str) -> str:
    return ", ".join(constraint_text(results, c) for c in results.constraints if c.column == column)


def trial_sentence(results: StudyRecord, number: int, device: str | None) -> str:
    """Returns e.g. `97.80 % top1 (−0.20 pp [−0.60, +0.10]) at 31 KiB weight size, 3.9× smaller`."""
    return _sentence(results, number, _main_costs(results, device))


def _sentence(results: StudyRecord, number: int, cost_columns: Sequence[str]) -> str:
    record, metric = results.trial(number), headline_metric(results)
    if metric and (on_test := _on_test(metric)) in record.values():
        metric = on_test  # not used by the search, so not biased by the selection of the best trial
    parts = []
    now = figure(record.measurements, metric) if metric else None
    if metric and now:
        changed = change(results, record, metric)
        parts.append(f"{now.text} {label(metric)}" + (f" ({changed.full})" if changed else ""))
    parts += [_cost_phrase(results, record, c) for c in cost_columns if figure(record.measurements, c)]
    return (
        " at ".join(filter(None, [parts[0], numbers.listing(parts[1:])])) if parts else "nothing was measured"
    )


def _on_test(metric: str) -> str:
    parsed = Column.parse(metric)
    return str(parsed.named(f"test_{parsed.name}"))


def _main_costs(results: StudyRecord, device: str | None) -> list[str]:
    """Returns the cost columns that a sentence mentions: those of the device's objectives, and a size."""
    cost_columns = list(costs(results, device)) if device else []
    if not device:
        cost_columns = [o.column for o in results.objectives if o.column != headline_metric(results)]
    if not any(c.endswith("_bytes") for c in cost_columns):
        cost_columns.append(_FILE_BYTES)
    return cost_columns


def _cost_phrase(results: StudyRecord, record: TrialRecord, column: str) -> str:
    now = figure(record.measurements, column)
    assert now is not None
    compared = _difference(results, record, column)
    qualifier = "" if now.source == "measured" else f"{now.source} "
    return f"{now.text} {qualifier}{label(column)}" + (f" ({compared})" if compared else "")


def answers(results: StudyRecord) -> list[str]:
    """Returns which model to ship: a sentence per device, per model if devices are many, or why none."""
    if len(results.picks) > MANY_DEVICES:
        return _by_model(results)
    if results.picks:
        return [
            f"Ship trial {p.number} to {p.device}: {trial_sentence(results, p.number, p.device)}. {p.caveat}".rstrip()
            for p in results.picks
        ]
    if results.best is not None:
        return [f"The best is trial {results.best}: {trial_sentence(results, results.best, None)}."]
    return [no_answer(results)]


def _by_model(results: StudyRecord) -> list[str]:
    """Returns a sentence for each model with the devices that it is picked for, and the caveats by device."""
    by_model: dict[int, list[str]] = {}
    for pick in results.picks:
        by_model.setdefault(pick.number, []).append(pick.device)
    sentences = [
        f"Ship trial {number} to {numbers.listing(devices)}: {_sentence(results, number, [_FILE_BYTES])}."
        for number, devices in by_model.items()
    ]
    caveats: dict[str, list[str]] = {}
    for pick in results.picks:
        if pick.caveat:
            caveats.setdefault(pick.caveat.replace(" there ", " "), []).append(pick.device)
    return [*sentences, *(f"On {numbers.listing(devices)}: {caveat}" for caveat, devices in caveats.items())]


def no_answer(results: StudyRecord) -> str:
    """Returns a sentence on why no trial can be shipped."""
    states = results.states()
    if not results.trials:
        return "No trial has ended yet."
    if states["infeasible"] or states["pruned"]:
        broken = misses(results)
        stopped = f", {states['pruned']} were pruned (stopped early)" if states["pruned"] else ""
        n_broke, n_trials = states["infeasible"], len(results.trials)
        text = f"No candidate met the constraints: {n_broke} of {n_trials} trials broke one{stopped}"
        return text + (f". {broken[0].sentence(results)}" if broken else ".")
    return f"No candidate could be evaluated: {states['failed']} of {len(results.trials)} trials failed."


def knob_texts(record: TrialRecord) -> dict[str, str]:
    """Returns a trial's knobs as text."""
    return {path: value_text(value) for path, value in record.candidate.items()}


def split_knobs(results: StudyRecord, trial_numbers: tuple[int, ...]) -> tuple[list[str], dict[str, str]]:
    """Returns the knobs in which these trials differ, in space order, and the values that all of them share."""
    candidates = [knob_texts(results.trial(n)) for n in trial_numbers]
    paths = list(dict.fromkeys([*results.knobs, *(p for c in candidates for p in c)]))
    differing, shared = [], {}
    for path in paths:
        values = {c.get(path) for c in candidates}
        if len(values) > 1:
            differing.append(path)
        elif (only := next(iter(values), None)) is not None:
            shared[path] = only
    return differing, shared


def states_text(results: StudyRecord) -> str:
    """Returns e.g. `24 trials: 18 complete, 3 infeasible, 3 failed; 2 duplicate proposals`."""
    counts = [f"{n} {state}" for state, n in results.states().items() if n]
    text = numbers.counted(len(results.trials), "trial") + (f": {', '.join(counts)}" if counts else "")
    if results.aliases:
        text += f"; {numbers.counted(len(results.aliases), 'duplicate proposal')}"
    return text
