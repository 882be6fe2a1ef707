"""The section on the layers of the best model, beside the runner-up's and the worst trial's."""

from search.record.results import Results, TrialRecord
from search.report.findings import numbers
from search.report.findings.layers import KEYS, Advice, advice, key_of, layers, rivals, sqnr
from search.report.page.markup import Charts, Section, details, esc, table, trial_link

_MOST_LAYERS = 60


def section(results: Results, charts: Charts) -> Section | None:
    """Returns the section, or None if the best trial has no per-layer details."""
    if results.best is None:
        return None
    best = results.trial(results.best)
    key = key_of(best)
    if key is None:
        return _absent(best)
    compared = [("best", best), *rivals(results, best, key)]
    lead = (
        "Signal-to-quantization-noise ratio of each layer in dB, against the float model: 6 dB less is twice the error "
        "amplitude, and the lowest bar is the layer that hurts most."
    )
    body = _advice_html(results, best) + _chart(charts, compared, key) + _table(best)
    return Section("why", f"Layer by layer: why trial {best.number}", lead, body)


def _absent(best: TrialRecord) -> Section | None:
    reason = best.details.get("layers_absent_because")
    if not reason:
        return None
    return Section(
        "why", f"Layer by layer: why trial {best.number}", f"The layers could not be compared: {reason}", ""
    )


def _chart(charts: Charts, compared: list[tuple[str, TrialRecord]], key: str) -> str:
    by_layer = sqnr(compared[0][1], key)
    names = list(by_layer)
    if len(names) > _MOST_LAYERS:
        lowest = set(sorted(names, key=lambda n: by_layer[n])[:_MOST_LAYERS])
        names = [n for n in names if n in lowest]
    colours = {"best": "var(--accent)", "runner-up": "var(--second)", "worst": "var(--faint)"}
    traces = []
    for role, record in compared[::-1]:  # Plotly draws from the bottom up
        values = sqnr(record, key)
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": f"trial {record.number} ({role})",
                "y": [esc(n) for n in names],
                "x": [values.get(n) for n in names],
                "marker": {"color": colours[role]},
                "hovertemplate": "%{y}: %{x:.1f} dB<extra>%{fullData.name}</extra>",
            }
        )
    layout = {
        "barmode": "group",
        "xaxis": {"title": {"text": f"{KEYS[key]} (dB)"}},
        "yaxis": {"automargin": True, "autorange": "reversed", "type": "category"},
        "legend": {"traceorder": "reversed"},
    }
    title = f"{KEYS[key]} by layer, in the network's order"
    if len(names) < len(by_layer):
        title += f" (the {len(names)} lowest of {len(by_layer)})"
    return charts.add(traces, layout, title, height=120 + (12 + 10 * len(compared)) * len(names))


def _advice_html(results: Results, best: TrialRecord) -> str:
    found = advice(results, best)
    if found is None:
        return ""
    hurts = f"<strong>{esc(found.layer)}</strong> hurts most: {found.sqnr_db:.1f} dB {esc(KEYS[found.key])}."
    return f'<p class="finding">{hurts} {_suggestion(found)}</p>'


def _suggestion(found: Advice) -> str:
    if found.better is None or found.better_db is None:
        return (
            "No trial of this study does clearly better at this layer: give it more bits, or keep it in float, in a "
            "wider space."
        )
    kept = ", where it keeps the layer in float" if found.better_keeps_float else ""
    told = [
        f"<code>{esc(k)}</code> = <code>{esc(b)}</code>"
        for k, (_, b) in found.differing.items()
        if b is not None
    ]
    gone = [f"<code>{esc(k)}</code> inactive" for k, (_, b) in found.differing.items() if b is None]
    changes = numbers.listing([*told, *gone][:6]) or "the same knobs"
    return (
        f"{trial_link(found.better.number)} reaches {found.better_db:.1f} dB there{kept}; it differs in {changes}. "
        "What to try next: these values for this layer alone, where the space allows it."
    )


def _table(best: TrialRecord) -> str:
    entries = layers(best)
    scalars = [k for k in dict.fromkeys(k for e in entries for k in e) if k != "layer"]
    shown = [k for k in scalars if any(isinstance(e.get(k), int | float | str) for e in entries)]
    rows = [[f"<code>{esc(e['layer'])}</code>", *(_cell(e.get(k)) for k in shown)] for e in entries]
    heads = [
        "layer",
        *(KEYS.get(k, k.replace("_", " ")) + ("\ndB" if k.endswith("_db") else "") for k in shown),
    ]
    return details(f"Every layer of trial {best.number}", table(heads, rows, numeric=range(1, len(heads))))


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return esc(f"{value:.1f}")
    return esc(value)
