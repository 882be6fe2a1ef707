"""The results of a study as sentences and rows, which the page, the terminal and the tracker show."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluators.column import Column
from evaluators.cost.latency.order import TIE
from search.record.front import feasible_baseline
from search.record.results import BASELINE, DevicePick, StudyRecord, TrialRecord, model_name
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
    is_of_float,
    is_on_validation,
    label,
    on_test,
    split_label,
)
from search.report.findings.misses import misses
from spaces.candidate import value_text

# more devices than these get a table in the terminal, and a sentence per model instead of per device
MANY_DEVICES = 3
_FILE_BYTES, _PACKED_BYTES = (str(Column.of(name)) for name in ("file_bytes", "packed_bytes"))
# not compared with the baseline: they repeat the row of the latency; trials.csv has them
_WORSE = ("slower", "larger", "higher")
_DETAILS = ("first_", "latency_float_", "latency_iqr_", "speedup")


@dataclass(frozen=True)
class Row:
    """One measurement of the baseline and of a trial.

    Attributes:
        column: Column of trials.csv.
        name: The column as it is shown, with the split of a metric.
        before: The baseline's figure; None if it lacks one, or the column compares with the baseline.
        after: The trial's figure; None if it lacks one.
        difference: A signed change for metrics, a ratio (`3.9× smaller`) for costs; may be empty.
        limits: The constraints on this column, as text.
    """

    column: str
    name: str
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
        if before is None and after is None:
            continue
        name, limits = split_label(results, column), _limits(results, column)
        if is_of_float(column):
            rows.append(Row(column, name, None, after, "", limits))
        else:
            rows.append(Row(column, name, before, after, _difference(results, record, column), limits))
    return rows


def _difference(results: StudyRecord, record: TrialRecord, column: str) -> str:
    before, after = figure(results.baseline, column), figure(record.measurements, column)
    is_cost = Column.parse(column).is_cost or (after is not None and after.unit == "bytes")
    if is_cost and before is not None and after is not None:
        return numbers.ratio(column, before.value, after.value) or ""
    changed = change(results, record, column)
    return changed.full if changed else ""


def _limits(results: StudyRecord, column: str) -> str:
    return ", ".join(constraint_text(results, c) for c in results.constraints if c.column == column)


def trial_sentence(results: StudyRecord, number: int, device: str | None) -> str:
    """Returns e.g. `97.80 % test top1 [96.9, 98.5] (−0.20 pp [−0.60, +0.10]) at 31 KiB file size (3.9× smaller)`."""
    return _sentence(results, number, _main_costs(results, device))


def _sentence(results: StudyRecord, number: int, cost_columns: Sequence[str]) -> str:
    record, metric = results.trial(number), headline_metric(results)
    if metric and on_test(metric) in record.values():
        metric = on_test(metric)  # not used by the search, so not biased by the selection of the best trial
    parts = []
    now = figure(record.measurements, metric) if metric else None
    if metric and now:
        changed = change(results, record, metric) if number != BASELINE else None
        text = f"{now.text} {split_label(results, metric)} {now.interval}".rstrip()
        parts.append(text + (f" ({changed.full})" if changed else ""))
    parts += [_cost_phrase(results, record, c) for c in cost_columns if figure(record.measurements, c)]
    return (
        " at ".join(filter(None, [parts[0], numbers.listing(parts[1:])])) if parts else "nothing was measured"
    )


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
    compared = _difference(results, record, column) if record.number != BASELINE else ""
    if compared.endswith(_WORSE):
        compared += " than the float model"
    qualifier = "" if now.source == "measured" else f"{now.source} "
    text = f"{now.text} {qualifier}{label(column)} {now.interval}".rstrip()
    return text + (f" ({compared})" if compared else "")


def answers(results: StudyRecord) -> list[str]:
    """Returns which model to ship: a sentence per device, per model if devices are many, or why none."""
    if len(results.picks) > MANY_DEVICES:
        return _by_model(results)
    if results.picks:
        return [" ".join(_answer(results, pick)) for pick in results.picks]
    if results.best == BASELINE:
        return [f"Keep the float model: {trial_sentence(results, BASELINE, None)}."]
    if results.best is not None:
        return [f"The best is trial {results.best}: {trial_sentence(results, results.best, None)}."]
    return [no_answer(results)]


def _answer(results: StudyRecord, pick: DevicePick) -> list[str]:
    """Returns sentences: what to ship, the reason where it is a tie, what speaks against it, and what another run may say."""
    ship = f"Keep the float model on {pick.device}" if pick.number == BASELINE else None
    ship = ship or f"Ship trial {pick.number} to {pick.device}"
    sentences = [f"{ship}: {trial_sentence(results, pick.number, pick.device)}."]
    if not pick.why.startswith("lowest"):
        sentences.append(f"It is {reason(results, pick.why)}.")
    elif pick.number == BASELINE:
        sentences.append(f"No model that meets the limits is better there ({pick.why}).")
    return [*sentences, *filter(None, [pick.caveat, _rivals(pick)])]


def reason(results: StudyRecord, why: str) -> str:
    """Returns the reason for a pick, with the split of the metric that decided."""
    main = results.objectives[0].column if results.objectives else None
    if main is None or not is_on_validation(results, main):
        return why
    name = Column.parse(main).short
    return why.replace(f"better {name}", f"better validation {name}")


def _rivals(pick: DevicePick) -> str:
    """Returns a sentence on the models that another run of the same study may pick; empty if there are none."""
    if not pick.rivals:
        return ""
    named = numbers.listing([model_name(number) for number in pick.rivals])
    return f"Another run may pick {named}: the timings leave open which of them are within {100 * TIE:.0f} % of the lowest."


def _by_model(results: StudyRecord) -> list[str]:
    """Returns a sentence for each model with the devices that it is picked for, and the caveats by device."""
    by_model: dict[int, list[str]] = {}
    for pick in results.picks:
        by_model.setdefault(pick.number, []).append(pick.device)
    sentences = [
        f"{'Keep' if number == BASELINE else 'Ship'} {model_name(number)} {'on' if number == BASELINE else 'to'} "
        f"{numbers.listing(devices)}: {_sentence(results, number, [_FILE_BYTES])}."
        for number, devices in by_model.items()
    ]
    caveats: dict[str, list[str]] = {}
    for pick in results.picks:
        if pick.caveat:
            caveats.setdefault(pick.caveat, []).append(pick.device)
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
        return text + (f". {broken[0].sentence(results)}" if broken else ".") + _float_instead(results)
    return f"No candidate could be evaluated: {states['failed']} of {len(results.trials)} trials failed."


def _float_instead(results: StudyRecord) -> str:
    """Returns a sentence if the float model meets what no candidate does."""
    dense = feasible_baseline(results.trial(BASELINE), results.objectives, results.constraints)
    return "" if dense is None else " The float model keeps every limit."


def knob_texts(record: TrialRecord) -> dict[str, str]:
    """Returns a trial's knobs as text."""
    return {path: value_text(value) for path, value in record.candidate.items()}


def split_knobs(results: StudyRecord, trial_numbers: tuple[int, ...]) -> tuple[list[str], dict[str, str]]:
    """Returns the knobs in which these trials differ, in space order, and the values that all of them share."""
    candidates = [knob_texts(results.trial(n)) for n in trial_numbers if n != BASELINE]
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
