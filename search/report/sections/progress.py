"""The section on how the search went: its progress over the trials, and where the time went."""

from collections import Counter
from typing import Any

from search.record.results import Results, TrialRecord
from search.report.findings import numbers
from search.report.findings.figures import direction, label, sources_of, unit_of
from search.report.page.markup import Charts, Section, esc, table

LOW_FIDELITY = (
    "known",
    "statistics",
    "low_fidelity",
)  # what a sampler asks about candidates that are no trials
_LOW_FIDELITY = (
    "Looks at candidates before their trials took {}, {:.0f} % of the trials’ time; they are no trials."
)
_STEPS = {
    "propose": "the sampler’s own thinking",
    "known": "looks: modelled costs, which are certain",
    "statistics": "looks: reckoned from the calibration statistics, without a run",
    "looks": "looks: short runs on a part of the validation examples",
    "prepare": "making the candidate ready for its stages",
    "sparsify": "training it towards channels that can go",
    "prune": "cutting channels and blocks",
    "recover": "training what was left",
    "prune_recover": "cutting and training in turns",
    "accuracy": "running the candidate on the validation examples",
    "cost": "modelling its costs",
    "latency": "timing it",
}


def best_so_far(results: Results, column: str) -> list[float | None]:
    """Returns the best feasible value of a column after each trial; None before the first feasible one."""
    better = max if direction(results, column) == "maximize" else min
    best: float | None = None
    found = []
    for record in results.trials:
        value = record.values().get(column)
        if record.state == "complete" and value is not None:
            best = value if best is None else better(best, value)
        found.append(best)
    return found


def section(results: Results, charts: Charts) -> Section | None:
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
        "How the search went",
        lead,
        f'{_prediction(results)}<div class="grid">{"".join(drawn)}</div>{_learned(results)}{_seconds(results)}',
    )


def _prediction(results: Results) -> str:
    if not results.prediction:
        return ""
    return f'<p class="finding">{esc(results.prediction[:1].upper() + results.prediction[1:])}.</p>'


def _learned(results: Results) -> str:
    if not results.learned:
        return ""
    told = "".join(f"<li>{esc(text)}</li>" for text in results.learned)
    return f"<h3>What earlier studies taught</h3><ul>{told}</ul>"


def _best_chart(results: Results, charts: Charts, column: str) -> str:
    numbers_ = [t.number for t in results.trials]
    judged = [t for t in results.trials if column in t.values()]
    pruned = [t for t in results.trials if t.state == "pruned" and t.estimate(column) and t not in judged]
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "each trial",
            "x": [t.number for t in judged],
            "y": [t.values()[column] for t in judged],
            "customdata": [t.number for t in judged],
            "text": [esc(t.state) for t in judged],
            "marker": {
                "size": 6,
                "color": ["var(--accent)" if t.state == "complete" else "var(--faint)" for t in judged],
            },
            "hovertemplate": "trial %{x}: %{y} (%{text})<extra></extra>",
        },
        *([_pruned_trace(pruned, column)] if pruned else []),
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best so far",
            "x": numbers_,
            "y": best_so_far(results, column),
            "line": {"shape": "hv", "color": "var(--accent)"},
        },
    ]
    shown = ", ".join(filter(None, [unit_of(results, column), "/".join(sources_of(results, column))]))
    name = label(column, with_device=True)
    axis = {"title": {"text": esc(f"{name} ({shown})" if shown else name)}}
    return charts.add(traces, {"xaxis": {"title": {"text": "trial"}}, "yaxis": axis}, f"{name} by trial", 320)


def _pruned_trace(pruned: list[TrialRecord], column: str) -> dict[str, Any]:
    found = [t.estimate(column) or (None, 0.0) for t in pruned]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "stopped early (estimate)",
        "x": [t.number for t in pruned],
        "y": [value for value, _ in found],
        "customdata": [t.number for t in pruned],
        "error_y": {"type": "data", "array": [1.96 * error for _, error in found], "color": "var(--faint)"},
        "marker": {"size": 6, "symbol": "x", "color": "var(--faint)"},
        "hovertemplate": "trial %{x}: about %{y} (stopped early)<extra></extra>",
    }


def _volume_chart(results: Results, charts: Charts) -> str:
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


def _seconds(results: Results) -> str:
    totals: Counter[str] = Counter()
    for record in results.trials:
        totals.update(record.seconds)
    if not totals:
        return ""
    whole, n_trials = sum(totals.values()) or 1.0, len(results.trials)
    rows = [
        [
            f"<code>{esc(step)}</code>",
            esc(_STEPS.get(step, "a step of the trial")),
            esc(numbers.duration(total)),
            f'<span class="bar" style="--share:{100 * total / whole:.1f}%"></span>{100 * total / whole:.0f} %',
            esc(numbers.duration(total / n_trials)),
        ]
        for step, total in totals.most_common()
    ]
    low_fidelity_s = sum(totals[step] for step in LOW_FIDELITY)
    told = (
        f"<p>{esc(_LOW_FIDELITY.format(numbers.duration(low_fidelity_s), 100 * low_fidelity_s / whole))}</p>"
        if low_fidelity_s
        else ""
    )
    heads = ["step", "what it is", "in all", "share", "per trial"]
    return f"<h3>Where the time went</h3>{told}" + table(heads, rows, numeric=(2, 3, 4))
