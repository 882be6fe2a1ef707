"""The section on the SQNR of the best model's layers, beside the runner-up's and the worst trial's."""

from search.record.results import StudyRecord, TrialRecord
from search.report.findings import numbers
from search.report.findings.layers import KEYS, Advice, advice, key_of, layers, rivals, sqnr
from search.report.page.markup import Charts, Section, details, esc, table, trial_link

_MOST_LAYERS = 60


def section(results: StudyRecord, charts: Charts) -> Section | None:
    """Returns the section, or None if the best trial has no per-layer details."""
    if results.best is None:
        return None
    best = results.trial(results.best)
    key = key_of(best)
    if key is None:
        return _absent(best)
    compared = [("best", best), *rivals(results, best, key)]
    lead = (
        "Signal-to-quantization-noise ratio (SQNR) of each layer in dB, against the float model: 6 dB less is twice the "
        "error amplitude."
    )
    body = _advice_html(results, best) + _chart(charts, compared, key) + _table(best)
    return Section("why", f"Layers of trial {best.number}", lead, body)


def _absent(best: TrialRecord) -> Section | None:
    reason = best.details.get("layers_absent_because")
    if not reason:
        return None
    return Section("why", f"Layers of trial {best.number}", f"The layers could not be compared: {reason}", "")


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


def _advice_html(results: StudyRecord, best: TrialRecord) -> str:
    weakest = advice(results, best)
    if weakest is None:
        return ""
    db, key = f"{weakest.sqnr_db:.1f} dB", KEYS[weakest.key]
    text = f"<strong>{esc(weakest.layer)}</strong> has the lowest {esc(key)}: {db}."
    return f'<p class="finding">{text} {_suggestion(weakest)}</p>'


def _suggestion(weakest: Advice) -> str:
    if weakest.better is None or weakest.better_db is None:
        return (
            "No trial of this study is clearly better at this layer: widen the space, so that the layer can have more "
            "bits or stay in float."
        )
    kept = ", where it keeps the layer in float" if weakest.better_keeps_float else ""
    changed = [
        f"<code>{esc(k)}</code> = <code>{esc(b)}</code>"
        for k, (_, b) in weakest.differing.items()
        if b is not None
    ]
    inactive = [f"<code>{esc(k)}</code> inactive" for k, (_, b) in weakest.differing.items() if b is None]
    changes = numbers.listing([*changed, *inactive][:6]) or "no knob"
    return (
        f"{trial_link(weakest.better.number)} reaches {weakest.better_db:.1f} dB there{kept}; it differs in "
        f"{changes}. Try these values for this layer alone, if the space allows that."
    )


def _table(best: TrialRecord) -> str:
    entries = layers(best)
    scalars = [k for k in dict.fromkeys(k for e in entries for k in e) if k != "layer"]
    columns = [k for k in scalars if any(isinstance(e.get(k), int | float | str) for e in entries)]
    rows = [[f"<code>{esc(e['layer'])}</code>", *(_cell(e.get(k)) for k in columns)] for e in entries]
    heads = [
        "layer",
        *(KEYS.get(k, k.replace("_", " ")) + ("\ndB" if k.endswith("_db") else "") for k in columns),
    ]
    return details(f"Every layer of trial {best.number}", table(heads, rows, numeric=range(1, len(heads))))


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return esc(f"{value:.1f}")
    return esc(value)
