"""The section on the progress of the search over the trials, and on the time of each step."""

from collections.abc import Sequence

from search.record.results import StudyRecord, TrialRecord
from search.report.findings import numbers
from search.report.findings.figures import direction, label, sources_of, unit_of
from search.report.findings.time_spent import LOW_FIDELITY, Spent, phases, steps
from search.report.page.bars import bar
from search.report.page.chart import Axis, Point, Series, chart
from search.report.page.markup import Section, details, esc, table, trial_anchor

_LOW_FIDELITY = (
    "Low-fidelity evaluations of candidates before their trials took {}, {:.0f} % of the time of all steps; they do "
    "not count as trials."
)
_ALL_WORKERS = "All that took {}, added up over workers and sessions; the study has run for {}. This page itself is not in it."
_STEPS = {
    "propose": "sampler: fitting its model and choosing the candidate",
    "known": "low-fidelity evaluations: modelled costs, which are exact without a run",
    "statistics": "low-fidelity evaluations: noise predicted from calibration statistics, without a run",
    "low_fidelity": "low-fidelity evaluations: runs on a part of the validation examples",
    "prepare": "reducing the candidate’s knobs to canonical values",
    "sparsify": "training for sparse channels, before pruning",
    "prune": "pruning channels and blocks",
    "recover": "training after pruning",
    "prune_recover": "pruning and training in rounds",
    "export": "exporting the network to ONNX",
    "quantize": "quantizing the network",
    "accuracy": "evaluating the candidate on the validation examples",
    "cost": "modelling the candidate’s costs",
    "latency": "timing the candidate",
    "waiting": "waiting for another timing, or for computations to end before a timing, on the same machine",
    "other": "the rest of the trials’ time",
}


def best_so_far(results: StudyRecord, column: str) -> list[float | None]:
    """Returns the best feasible value of a column after each trial; None before the first feasible one."""
    better = max if direction(results, column) == "maximize" else min
    best: float | None = None
    values = []
    for record in results.trials:
        value = record.values().get(column)
        if record.state == "complete" and value is not None:
            best = value if best is None else better(best, value)
        values.append(best)
    return values


def section(results: StudyRecord) -> Section | None:
    """Returns the section, or None if there is no trial yet."""
    if not results.trials:
        return None
    drawn = []
    if results.objectives:
        drawn.append(_best_chart(results, results.objectives[0].column))
    if len(results.objectives) > 1 and any(results.hypervolumes):
        drawn.append(_volume_chart(results))
    lead = f"{numbers.counted(len(results.trials), 'trial')} by {results.sampler} in {numbers.duration(results.wall_s)}."
    lead += f" Ended: {results.ended}." if results.ended else ""
    lead += f" {results.prediction[:1].upper()}{results.prediction[1:]}." if results.prediction else ""
    return Section(
        "progress",
        "Progress of the search",
        lead,
        f'<div class="grid">{"".join(drawn)}</div>{_learned(results)}{_seconds(results)}',
    )


def _learned(results: StudyRecord) -> str:
    if not results.learned:
        return ""
    items = "".join(f"<li>{esc(text)}</li>" for text in results.learned)
    return f"<h3>Knowledge from earlier studies</h3><ul>{items}</ul>"


def _best_chart(results: StudyRecord, column: str) -> str:
    measured = [t for t in results.trials if column in t.values()]
    best = enumerate(best_so_far(results, column))
    unit = unit_of(results, column)
    series = [
        Series(
            "breaks a limit",
            "other",
            _points(column, unit, [t for t in measured if t.state != "complete"]),
            "cross",
        ),
        Series("stopped early (estimate)", "c2", _stopped(results, column, unit), "cross"),
        Series(
            "meets every limit",
            "front",
            _points(column, unit, [t for t in measured if t.state == "complete"]),
        ),
        Series(
            "best so far",
            "front",
            [Point(results.trials[i].number, v) for i, v in best if v is not None],
            "",
            "steps",
        ),
    ]
    qualifier = ", ".join(filter(None, [unit, "/".join(sources_of(results, column))]))
    name = label(column, with_device=True)
    return chart(
        f"{name} by trial",
        series,
        Axis("trial", is_count=True),
        Axis(f"{name} ({qualifier})" if qualifier else name),
    )


def _points(column: str, unit: str, trials: Sequence[TrialRecord]) -> list[Point]:
    return [
        Point(
            t.number, v, f"trial {t.number}: {numbers.quantity(v, unit)} ({t.state})", trial_anchor(t.number)
        )
        for t in trials
        for v in (t.values()[column],)
    ]


def _stopped(results: StudyRecord, column: str, unit: str) -> list[Point]:
    """Returns the estimates of trials that were stopped early, with their 95 % intervals."""
    points = []
    for t in results.trials:
        estimate = t.estimate(column) if t.state == "pruned" and column not in t.values() else None
        if estimate is not None:
            value, half = estimate[0], 1.96 * estimate[1]
            tip = f"trial {t.number}: about {numbers.quantity(value, unit)} (stopped early)"
            points.append(
                Point(t.number, value, tip, trial_anchor(t.number), y_ends=(value - half, value + half))
            )
    return points


def _volume_chart(results: StudyRecord) -> str:
    points = [Point(i, v) for i, v in enumerate(results.hypervolumes, 1)]
    title = "Hypervolume of the front (larger is better)"
    return chart(
        title,
        [Series("", "front", points, "", "steps")],
        Axis("trials", is_count=True),
        Axis("hypervolume", from_zero=True),
    )


def _seconds(results: StudyRecord) -> str:
    totals = steps(results)
    if not totals:
        return ""
    steps_s, n_trials = sum(totals.values()) or 1.0, len(results.trials)
    outside = phases(results)
    whole_s = steps_s + sum(spent.seconds for spent in outside)
    of_trials = [
        _row(Spent(step, _STEPS.get(step, "a stage or an evaluator of the trial"), total), whole_s, n_trials)
        for step, total in totals.items()
    ]
    rows = of_trials + [_row(spent, whole_s) for spent in sorted(outside, key=lambda spent: -spent.seconds)]
    low_fidelity_s = sum(totals.get(step, 0.0) for step in LOW_FIDELITY)
    note = (
        f"<p>{esc(_LOW_FIDELITY.format(numbers.duration(low_fidelity_s), 100 * low_fidelity_s / steps_s))}</p>"
        if low_fidelity_s
        else ""
    )
    if outside:
        note += (
            f"<p>{esc(_ALL_WORKERS.format(numbers.duration(whole_s), numbers.duration(results.wall_s)))}</p>"
        )
    heads = ["step", "description", "total", "share", "per trial"]
    return details("Time by step", note + table(heads, rows, numeric=(2, 3, 4), name="Time by step"))


def _row(spent: Spent, whole_s: float, n_trials: int | None = None) -> list[str]:
    """Returns a row of the table of times; what is not done in trials has no time per trial."""
    share = 100 * spent.seconds / whole_s
    return [
        f"<code>{esc(spent.name)}</code>",
        esc(spent.what),
        esc(numbers.duration(spent.seconds)),
        f"{bar(share / 100)}{share:.0f} %",
        esc(numbers.duration(spent.seconds / n_trials)) if n_trials else "–",
    ]
