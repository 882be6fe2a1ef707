"""The section on the progress of the search over the trials, and on the time of each step."""

from typing import Any

from search.record.results import StudyRecord, TrialRecord
from search.report.findings import numbers
from search.report.findings.figures import direction, label, sources_of, unit_of
from search.report.findings.time_spent import LOW_FIDELITY, Spent, phases, steps
from search.report.page.markup import Charts, Section, esc, table

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


def section(results: StudyRecord, charts: Charts) -> Section | None:
    """Returns the section, or None if there is no trial yet."""
    if not results.trials:
        return None
    drawn = []
    if results.objectives:
        drawn.append(_best_chart(results, charts, results.objectives[0].column))
    if len(results.objectives) > 1 and results.hypervolumes:
        drawn.append(_volume_chart(results, charts))
    lead = f"{numbers.counted(len(results.trials), 'trial')} by {results.sampler} in {numbers.duration(results.wall_s)}."
    lead += f" Ended: {results.ended}." if results.ended else ""
    return Section(
        "progress",
        "Progress of the search",
        lead,
        f'{_prediction(results)}<div class="grid">{"".join(drawn)}</div>{_learned(results)}{_seconds(results)}',
    )


def _prediction(results: StudyRecord) -> str:
    if not results.prediction:
        return ""
    return f'<p class="finding">{esc(results.prediction[:1].upper() + results.prediction[1:])}.</p>'


def _learned(results: StudyRecord) -> str:
    if not results.learned:
        return ""
    items = "".join(f"<li>{esc(text)}</li>" for text in results.learned)
    return f"<h3>Knowledge from earlier studies</h3><ul>{items}</ul>"


def _best_chart(results: StudyRecord, charts: Charts, column: str) -> str:
    trial_numbers = [t.number for t in results.trials]
    measured = [t for t in results.trials if column in t.values()]
    pruned = [t for t in results.trials if t.state == "pruned" and t.estimate(column) and t not in measured]
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "each trial",
            "x": [t.number for t in measured],
            "y": [t.values()[column] for t in measured],
            "customdata": [t.number for t in measured],
            "text": [esc(t.state) for t in measured],
            "marker": {
                "size": 6,
                "color": ["var(--accent)" if t.state == "complete" else "var(--faint)" for t in measured],
            },
            "hovertemplate": "trial %{x}: %{y} (%{text})<extra></extra>",
        },
        *([_pruned_trace(pruned, column)] if pruned else []),
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best so far",
            "x": trial_numbers,
            "y": best_so_far(results, column),
            "line": {"shape": "hv", "color": "var(--accent)"},
        },
    ]
    qualifier = ", ".join(filter(None, [unit_of(results, column), "/".join(sources_of(results, column))]))
    name = label(column, with_device=True)
    axis = {"title": {"text": esc(f"{name} ({qualifier})" if qualifier else name)}}
    return charts.add(traces, {"xaxis": {"title": {"text": "trial"}}, "yaxis": axis}, f"{name} by trial", 320)


def _pruned_trace(pruned: list[TrialRecord], column: str) -> dict[str, Any]:
    estimates = [t.estimate(column) or (None, 0.0) for t in pruned]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "stopped early (estimate)",
        "x": [t.number for t in pruned],
        "y": [value for value, _ in estimates],
        "customdata": [t.number for t in pruned],
        "error_y": {
            "type": "data",
            "array": [1.96 * error for _, error in estimates],
            "color": "var(--faint)",
        },
        "marker": {"size": 6, "symbol": "x", "color": "var(--faint)"},
        "hovertemplate": "trial %{x}: about %{y} (stopped early)<extra></extra>",
    }


def _volume_chart(results: StudyRecord, charts: Charts) -> str:
    trace = {
        "type": "scatter",
        "mode": "lines",
        "x": list(range(1, len(results.hypervolumes) + 1)),
        "y": list(results.hypervolumes),
        "line": {"shape": "hv", "color": "var(--accent)"},
        "hovertemplate": "after %{x} trials: %{y:.4g}<extra></extra>",
    }
    layout = {
        "xaxis": {"title": {"text": "trials"}},
        "yaxis": {"title": {"text": "hypervolume"}, "rangemode": "tozero"},
        "showlegend": False,
    }
    return charts.add([trace], layout, "Hypervolume of the front (larger is better)", 320)


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
    return f"<h3>Time by step</h3>{note}" + table(heads, rows, numeric=(2, 3, 4))


def _row(spent: Spent, whole_s: float, n_trials: int | None = None) -> list[str]:
    """Returns a row of the table of times; what is not done in trials has no time per trial."""
    share = 100 * spent.seconds / whole_s
    return [
        f"<code>{esc(spent.name)}</code>",
        esc(spent.what),
        esc(numbers.duration(spent.seconds)),
        f'<span class="bar" style="--share:{share:.1f}%"></span>{share:.0f} %',
        esc(numbers.duration(spent.seconds / n_trials)) if n_trials else "–",
    ]
