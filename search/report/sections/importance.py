"""The section on knob importance: how much each objective depends on each knob."""

from search.record.results import StudyRecord
from search.report.findings import degraded
from search.report.findings.figures import label
from search.report.findings.forest import LEAST_TRIALS, TREES, Importance, importance
from search.report.findings.settings import settings_html
from search.report.page.markup import Charts, Section, esc

_MOST_BARS = 15
_METHOD = (
    f"Share of the total permutation importance: how much worse a random forest ({TREES} trees) predicts the "
    "objective of held-out trials once the knob's values are shuffled among the trials where the knob is active "
    "(Breiman 2001, 5 folds, 10 shuffles; the whiskers are one standard error over the folds). All layers of a "
    "per-layer knob count as one knob. The importance refers to the trials of this search; it does not say which "
    "value is better."
)


def section(results: StudyRecord, charts: Charts) -> Section | None:
    """Returns the section, or None if no trial was measured."""
    if not any(t.measurements for t in results.trials):
        return None
    charts_of_knobs, unranked = [], []
    for objective in results.objectives:
        ranking = importance(results.trials, objective.column)
        name = label(objective.column, with_device=True)
        if ranking.reason:
            unranked.append(f"<li>{esc(name)}: {esc(ranking.reason)}.</li>")
        else:
            charts_of_knobs.append(_chart(charts, name, ranking))
    charts_html = (
        f'<div class="grid">{"".join(charts_of_knobs)}</div><p class="method">{esc(_METHOD)}</p>'
        if charts_of_knobs
        else ""
    )
    none = f'<p>No ranking of knobs for:</p><ul class="unranked">{"".join(unranked)}</ul>' if unranked else ""
    lead = (
        ""
        if charts_of_knobs
        else f"No reliable ranking: it needs at least {LEAST_TRIALS} trials whose objective the knobs predict."
    )
    sentence = degraded.verdict(results)
    finding = f'<p class="finding">{esc(sentence)}</p>' if sentence else ""
    return Section("mattered", "Knob importance", lead, finding + charts_html + none + settings_html(results))


def _chart(charts: Charts, name: str, ranking: Importance) -> str:
    knobs = list(ranking.shares)[:_MOST_BARS][::-1]  # Plotly draws from the bottom up
    whiskers = [100 * ranking.spreads[k] for k in knobs]
    down = [min(w, 100 * ranking.shares[k]) for w, k in zip(whiskers, knobs, strict=True)]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [100 * ranking.shares[k] for k in knobs],
        "y": [esc(k) for k in knobs],
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
    title = f"{name} ({ranking.n_trials} trials, cross-validated R² {ranking.r2:.2f})"
    return charts.add([bars], layout, title, height=110 + 26 * len(knobs))
