"""The section on what mattered: which knobs decide each objective."""

from search.record.results import Results
from search.report.findings import degraded
from search.report.findings.figures import label
from search.report.findings.forest import LEAST_TRIALS, TREES, Importance, importance
from search.report.findings.settings import settings_html
from search.report.page.markup import Charts, Section, esc

_MOST_BARS = 15
_METHOD = (
    f"Share of the whole importance: how much worse a random forest ({TREES} trees) predicts the objective in trials that "
    "it has not seen, once the knob's values are shuffled among the trials where the knob is active (Breiman 2001, 5 "
    "folds, 10 shuffles; the whiskers are one standard error over the folds). All layers of a per-layer knob count as one knob. "
    "It says what mattered among the trials that this search made, not which value is better."
)


def section(results: Results, charts: Charts) -> Section | None:
    """Returns the section, or None if no trial was measured."""
    if not any(t.measurements for t in results.trials):
        return None
    drawn, untold = [], []
    for objective in results.objectives:
        found = importance(results.trials, objective.column)
        name = label(objective.column, with_device=True)
        if found.reason:
            untold.append(f"<li>{esc(name)}: {esc(found.reason)}.</li>")
        else:
            drawn.append(_chart(charts, name, found))
    charts_html = (
        f'<div class="grid">{"".join(drawn)}</div><p class="method">{esc(_METHOD)}</p>' if drawn else ""
    )
    none = f'<p>No ranking of knobs for:</p><ul class="untold">{"".join(untold)}</ul>' if untold else ""
    lead = (
        ""
        if drawn
        else f"No ranking can be trusted here; one needs at least {LEAST_TRIALS} trials that it can predict."
    )
    told = degraded.verdict(results)
    finding = f'<p class="finding">{esc(told)}</p>' if told else ""
    return Section("mattered", "What mattered", lead, finding + charts_html + none + settings_html(results))


def _chart(charts: Charts, name: str, found: Importance) -> str:
    shown = list(found.shares)[:_MOST_BARS][::-1]  # Plotly draws from the bottom up
    whiskers = [100 * found.spreads[k] for k in shown]
    down = [min(w, 100 * found.shares[k]) for w, k in zip(whiskers, shown, strict=True)]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [100 * found.shares[k] for k in shown],
        "y": [esc(k) for k in shown],
        "error_x": {
            "type": "data",
            "array": whiskers,
            "arrayminus": down,
            "symmetric": False,
            "color": "var(--muted)",
            "thickness": 1.2,
        },
        "marker": {"color": "var(--accent)"},
        "hovertemplate": "%{y}: %{x:.0f} %<extra></extra>",
    }
    layout = {
        "xaxis": {"title": {"text": "share of importance (%)"}, "rangemode": "tozero"},
        "yaxis": {"automargin": True},
        "showlegend": False,
    }
    title = f"{name} ({found.n_trials} trials, cross-validated R² {found.r2:.2f})"
    return charts.add([bars], layout, title, height=110 + 26 * len(shown))
