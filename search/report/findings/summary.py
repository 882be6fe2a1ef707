"""What a study found, as sentences and rows; the page, the terminal and the tracker all show these."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluators.column import Column
from search.record.results import Results, TrialRecord
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

# in trials.csv for who wants them; beside the baseline they only say again what the latency's own row says
MANY_DEVICES = (
    3  # more than these get a table in the terminal, and a sentence per model instead of per device
)
_FILE_BYTES = str(Column.of("file_bytes"))
_DETAILS = ("first_", "latency_float_", "latency_iqr_", "speedup")


@dataclass(frozen=True)
class Row:
    """One measurement of the baseline beside a trial's.

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


def comparison(results: Results, number: int, device: str | None) -> list[Row]:
    """Returns the baseline beside one trial: the metrics, and the costs on `device` (all devices if None)."""
    record, rows = results.trial(number), []
    for column in columns(results):
        if device is not None and device_of(column) not in (None, device):
            continue
        if Column.parse(column).name.startswith(_DETAILS):
            continue
        before, after = figure(results.baseline, column), figure(record.measurements, column)
        if before is not None or after is not None:
            rows.append(
                Row(column, before, after, _difference(results, record, column), _limits(results, column))
            )
    return rows


def _difference(results: Results, record: TrialRecord, column: str) -> str:
    before, after = figure(results.baseline, column), figure(record.measurements, column)
    is_cost = Column.parse(column).is_cost or (after is not None and after.unit == "bytes")
    if is_cost and before is not None and after is not None:
        return numbers.ratio(column, _float_latency(record, column) or before.value, after.value) or ""
    found = change(results, record, column)
    return found.full if found else ""


def _float_latency(record: TrialRecord, column: str) -> float | None:
    """The float model's latency as it was timed in turns with this trial: what load there was hit both."""
    of = Column.parse(column)
    return record.values().get(str(of.named("latency_float_ms"))) if of.name == "latency_ms" else None


def _limits(results: Results, column: str) -> str:
    return ", ".join(constraint_text(results, c) for c in results.constraints if c.column == column)


def trial_sentence(results: Results, number: int, device: str | None) -> str:
    """Returns e.g. `97.80 % top1 (−0.20 pp [−0.60, +0.10]) at 31 KiB weight size, 3.9× smaller`."""
    return _sentence(results, number, _quoted(results, device))


def _sentence(results: Results, number: int, quoted: Sequence[str]) -> str:
    record, metric = results.trial(number), headline_metric(results)
    if metric and (on_test := _on_test(metric)) in record.values():
        metric = on_test  # the search never saw it, so the choice among trials does not flatter it
    parts = []
    now = figure(record.measurements, metric) if metric else None
    if metric and now:
        changed = change(results, record, metric)
        parts.append(f"{now.text} {label(metric)}" + (f" ({changed.full})" if changed else ""))
    parts += [_cost_phrase(results, record, c) for c in quoted if figure(record.measurements, c)]
    return (
        " at ".join(filter(None, [parts[0], numbers.listing(parts[1:])])) if parts else "nothing was measured"
    )


def _on_test(metric: str) -> str:
    of = Column.parse(metric)
    return str(of.named(f"test_{of.name}"))


def _quoted(results: Results, device: str | None) -> list[str]:
    """The costs that a sentence names: those that decide on the device, and a size."""
    quoted = list(costs(results, device)) if device else []
    if not device:
        quoted = [o.column for o in results.objectives if o.column != headline_metric(results)]
    if not any(c.endswith("_bytes") for c in quoted):
        quoted.append(_FILE_BYTES)
    return quoted


def _cost_phrase(results: Results, record: TrialRecord, column: str) -> str:
    now = figure(record.measurements, column)
    assert now is not None
    compared = _difference(results, record, column)
    qualifier = "" if now.source == "measured" else f"{now.source} "
    return f"{now.text} {qualifier}{label(column)}" + (f" ({compared})" if compared else "")


def answers(results: Results) -> list[str]:
    """Returns the answer of the study: a sentence per device (per model, if they are many), or why there is none."""
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


def _by_model(results: Results) -> list[str]:
    """One sentence for all devices that get the same model, and which of them gain nothing by it."""
    by_model: dict[int, list[str]] = {}
    for pick in results.picks:
        by_model.setdefault(pick.number, []).append(pick.device)
    told = [
        f"Ship trial {number} to {numbers.listing(devices)}: {_sentence(results, number, [_FILE_BYTES])}."
        for number, devices in by_model.items()
    ]
    caveats: dict[str, list[str]] = {}
    for pick in results.picks:
        if pick.caveat:
            caveats.setdefault(pick.caveat.replace(" there ", " "), []).append(pick.device)
    return [*told, *(f"On {numbers.listing(devices)}: {caveat}" for caveat, devices in caveats.items())]


def no_answer(results: Results) -> str:
    """Says why no trial can be shipped."""
    states = results.states()
    if not results.trials:
        return "No trial has ended yet."
    if states["infeasible"] or states["pruned"]:
        worst = misses(results)
        stopped = f", {states['pruned']} were stopped early as hopeless" if states["pruned"] else ""
        text = f"No candidate met the constraints: {states['infeasible']} of {len(results.trials)} broke one{stopped}"
        return text + (f". {worst[0].sentence(results)}" if worst else ".")
    return f"No candidate could be judged: {states['failed']} of {len(results.trials)} trials failed."


def knob_texts(record: TrialRecord) -> dict[str, str]:
    """Returns a trial's knobs as text."""
    return {path: value_text(value) for path, value in record.candidate.items()}


def split_knobs(results: Results, trial_numbers: tuple[int, ...]) -> tuple[list[str], dict[str, str]]:
    """Returns the knobs in which these trials differ, in space order, and the values that all of them share."""
    candidates = [knob_texts(results.trial(n)) for n in trial_numbers]
    paths = list(dict.fromkeys([*results.knobs, *(p for c in candidates for p in c)]))
    differing, shared = [], {}
    for path in paths:
        seen = {c.get(path) for c in candidates}
        if len(seen) > 1:
            differing.append(path)
        elif (only := next(iter(seen), None)) is not None:
            shared[path] = only
    return differing, shared


def states_text(results: Results) -> str:
    """Returns e.g. `24 trials: 18 complete, 3 infeasible, 3 failed; 2 proposals answered from the study`."""
    counts = [f"{n} {state}" for state, n in results.states().items() if n]
    text = numbers.counted(len(results.trials), "trial") + (f": {', '.join(counts)}" if counts else "")
    if results.aliases:
        text += f"; {numbers.counted(len(results.aliases), 'proposal')} answered from the study"
    return text
