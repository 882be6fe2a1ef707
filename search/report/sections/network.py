"""The section on pruning and training: what was pruned from the chosen models, and training curves."""

from collections.abc import Mapping, Sequence
from typing import Any

from search.record.curve import curve_of
from search.record.results import StudyRecord, TrialRecord
from search.report.findings import numbers
from search.report.page.markup import Charts, Section, details, esc, table, trial_link

_MOST_CURVES = 60
_COUNTS = {
    "macs": "multiply-accumulates",
    "parameters": "parameters",
    "weight_bytes": "bytes of weights in float",
}


def section(results: StudyRecord, charts: Charts) -> Section | None:
    """Returns the section, or None if no trial pruned or trained the network."""
    chosen = [
        results.trial(n)
        for n in dict.fromkeys((results.best, *(p.number for p in results.picks)))
        if n is not None
    ]
    parts = [text for record in chosen if (text := _cut(record))]
    trained = [record for record in results.trials if curve_of(record.details) is not None]
    if trained:
        parts.append(_curves(results, trained, charts))
    if not parts:
        return None
    lead = "What was pruned from the chosen models, and the metric after every training epoch, before quantization."
    return Section("network", "Pruning and training", lead, "".join(parts))


def notes_of(record: TrialRecord) -> Mapping[str, Any] | None:
    """Returns the notes of the stage that pruned the network (sizes, widths); None if none did."""
    stages = record.details.get("stages", {})
    return next(
        (notes for notes in stages.values() if isinstance(notes, Mapping) and "widths" in notes), None
    )


def _cut(record: TrialRecord) -> str:
    notes = notes_of(record)
    if notes is None:
        return ""
    widths = {layer: (int(before), int(after)) for layer, (before, after) in notes["widths"].items()}
    narrower = {layer: pair for layer, pair in widths.items() if pair[0] != pair[1]}
    counts = [_count(notes, key, name) for key, name in _COUNTS.items()]
    finding = f"{trial_link(record.number)} keeps {numbers.listing([text for text in counts if text])}."
    blocks = [f"<code>{esc(block)}</code>" for block in notes.get("blocks", ())]
    if blocks:
        finding += f" Blocks removed: {numbers.listing(blocks)}."
    if missed := notes.get("missed"):
        finding += f" {esc(str(missed))}."
    if not narrower:
        return f'<p class="finding">{finding}</p>'
    rows = [
        [f"<code>{esc(layer)}</code>", str(before), str(after), f"{100 * after / before:.0f} %"]
        for layer, (before, after) in widths.items()
    ]
    body = table(["layer", "channels before", "after", "kept"], rows, numeric=(1, 2, 3)) + _left_alone(notes)
    summary = f"Every layer of trial {record.number}: {len(narrower)} of {len(widths)} are narrower"
    return f'<p class="finding">{finding}</p>{details(summary, body)}'


def _count(notes: Mapping[str, Any], key: str, name: str) -> str:
    before, after = notes.get(f"{key}_before"), notes.get(f"{key}_after")
    if not before or after is None:
        return ""
    return f"{100 * after / before:.1f} % of {before:,} {name}"


def _left_alone(notes: Mapping[str, Any]) -> str:
    left_alone: Sequence[str] = notes.get("left_alone", ())
    if not left_alone:
        return ""
    return f"<p>Not pruned: {esc('; '.join(map(str, left_alone)))}.</p>"


def _curves(results: StudyRecord, trained: Sequence[TrialRecord], charts: Charts) -> str:
    """Returns a chart of the metric over epochs: the best trial, the front, and the latest other trials."""
    drawn = [r for r in trained if r.number == results.best or r.number in results.front]
    drawn += [r for r in trained[::-1] if r not in drawn][: max(0, _MOST_CURVES - len(drawn))]
    traces = [_trace(results, record) for record in sorted(drawn, key=lambda r: r.number == results.best)]
    curve = curve_of(trained[0].details)
    name = curve.metric if curve is not None else ""
    axes = {
        "xaxis": {"title": {"text": "epoch"}, "dtick": 1},
        "yaxis": {"title": {"text": esc(name)}},
        "showlegend": False,
    }
    stopped = sum(record.state == "pruned" for record in trained)
    title = f"{name} after every epoch, {len(drawn)} of {numbers.counted(len(trained), 'training')}"
    note = f"<p>{numbers.counted(stopped, 'training')} ended early (dotted).</p>" if stopped else ""
    return charts.add(traces, axes, title, 320) + note


def _trace(results: StudyRecord, record: TrialRecord) -> dict[str, Any]:
    curve = curve_of(record.details)
    values = list(curve.values) if curve is not None else []
    on_front = record.number in results.front
    colour = (
        "var(--accent)" if record.number == results.best else "var(--second)" if on_front else "var(--faint)"
    )
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": f"trial {record.number}",
        "x": list(range(1, len(values) + 1)),
        "y": values,
        "line": {"color": colour, "dash": "dot" if record.state == "pruned" else "solid"},
        "marker": {"size": 5},
        "hovertemplate": f"trial {record.number}, epoch %{{x}}: %{{y:.2f}} ({esc(record.state)})<extra></extra>",
    }
