"""The section on the Pareto front: per device, charts of the first objective against each cost, and a table."""

import math
from collections.abc import Sequence
from typing import Any

from evaluators.column import Column
from search.record.results import StudyRecord, TrialRecord
from search.report.findings import numbers
from search.report.findings.figures import (
    change,
    costs,
    devices,
    direction,
    figure,
    headline_metric,
    label,
    sources_of,
    unit_of,
)
from search.report.findings.summary import knob_texts
from search.report.page.markup import Charts, Section, esc
from search.report.sections.front_table import front_table

_MOST_KNOBS_IN_HOVER = 14


def section(results: StudyRecord, charts: Charts) -> Section | None:
    """Returns the front as charts and as a table, or None if there is a single objective."""
    axes = _axes(results)
    if not axes:
        return None
    parts = []
    for device, pairs in axes.items():
        heading = f"<h3>{esc(device)}</h3>" if device else ""
        drawn = "".join(_chart(results, charts, x, y, device) for x, y in pairs)
        parts.append(f'{heading}<div class="grid">{drawn}</div>')
    lead = (
        f"{numbers.counted(len(results.front), 'trial')} on the Pareto front: no other trial that met every "
        "constraint is at least as good in every objective and better in one. Click a point to see the trial."
    )
    if not results.front:
        lead = "The front is empty: no trial met every constraint. Click a point to see the trial."
    n_without = sum(t.state in ("failed", "pruned") and not t.measurements for t in results.trials)
    note = (
        f"<p>{numbers.counted(n_without, 'failed trial')} without measurements cannot be drawn.</p>"
        if n_without
        else ""
    )
    return Section("front", "Pareto front", lead, "".join(parts) + note + front_table(results))


def _axes(results: StudyRecord) -> dict[str, list[tuple[str, str]]]:
    """Returns, per device (`""` where there is none), the (x, y) columns of each chart."""
    if not results.objectives:
        return {}
    y = results.objectives[0].column
    axes: dict[str, list[tuple[str, str]]] = {}
    for device in devices(results):
        height = y if y not in costs(results, device) else (headline_metric(results) or y)
        pairs = [(x, height) for x in costs(results, device) if x != height]
        if pairs:
            axes[device] = pairs
    others = [(o.column, y) for o in results.objectives[1:] if not Column.parse(o.column).is_cost]
    return {**axes, **({"": others} if others else {})}


def _chart(results: StudyRecord, charts: Charts, x: str, y: str, device: str) -> str:
    placed = [t for t in results.trials if x in t.values() and y in t.values()]
    on_front = [t for t in placed if t.number in results.front]
    other = [t for t in placed if t.state == "complete" and t.number not in results.front]
    rejected = [t for t in placed if t.state != "complete"]
    picked: set[int | None] = {p.number for p in results.picks if p.device == device} or {results.best}
    traces = [
        _points(results, rejected, x, y, "infeasible", {"symbol": "x", "color": "var(--faint)", "size": 6}),
        _points(results, other, x, y, "complete", {"color": "var(--faint)", "size": 8}),
        _line(results, placed, x, y),
        _points(results, on_front, x, y, "front", {"color": "var(--accent)", "size": 9}),
        _points(results, [t for t in on_front if t.number in picked], x, y, "pick", _RING),
        *_baseline(results, x, y),
    ]
    title = f"{label(y)} against {label(x)}"
    layout = {
        "xaxis": _axis(results, x, placed),
        "yaxis": _axis(results, y, placed),
        "shapes": _limits(results, x, y),
    }
    return charts.add([t for t in traces if t["x"]], layout, title)


_RING = {"symbol": "circle-open", "size": 18, "color": "var(--accent)", "line": {"width": 2.5}}


def _scale(results: StudyRecord, column: str) -> tuple[float, str]:
    """Returns the divisor of a column's values and the unit to show: bytes are drawn as KiB."""
    unit = unit_of(results, column)
    return (1024.0, "KiB") if unit == "bytes" else (1.0, unit)


def _axis(results: StudyRecord, column: str, placed: Sequence[TrialRecord]) -> dict[str, Any]:
    values = [t.values()[column] for t in placed]
    base = figure(results.baseline, column)
    values += [base.value] if base else []
    wide = len(values) > 1 and min(values) > 0 and max(values) / min(values) > 30
    unit, sources = _scale(results, column)[1], "/".join(sources_of(results, column))
    qualifier = ", ".join(filter(None, [unit, sources]))
    title = f"{label(column)} ({qualifier})" if qualifier else label(column)
    return {"title": {"text": esc(title)}, "type": "log" if wide else "linear"}


def _points(
    results: StudyRecord, trials: Sequence[TrialRecord], x: str, y: str, name: str, marker: dict[str, Any]
) -> dict[str, Any]:
    by_x, by_y = _scale(results, x)[0], _scale(results, y)[0]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [t.values()[x] / by_x for t in trials],
        "y": [t.values()[y] / by_y for t in trials],
        "text": [hover(results, t, (y, x)) for t in trials],
        "customdata": [t.number for t in trials],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": marker,
    }


def _line(results: StudyRecord, placed: Sequence[TrialRecord], x: str, y: str) -> dict[str, Any]:
    """Returns the front over these two axes alone, as steps; a front over more objectives may lie behind it."""
    signs = {c: 1.0 if direction(results, c) == "minimize" else -1.0 for c in (x, y)}
    feasible = [t.values() for t in placed if t.state == "complete"]
    edge, best = [], math.inf
    for values in sorted(feasible, key=lambda v: (signs[x] * v[x], signs[y] * v[y])):
        if signs[y] * values[y] < best:
            best = signs[y] * values[y]
            edge.append(values)
    by_x, by_y = _scale(results, x)[0], _scale(results, y)[0]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "two-axis front",
        "x": [v[x] / by_x for v in edge],
        "y": [v[y] / by_y for v in edge],
        "line": {"shape": "hv", "color": "var(--accent)", "width": 1.5},
        "hoverinfo": "skip",
    }


def _baseline(results: StudyRecord, x: str, y: str) -> list[dict[str, Any]]:
    at_x, at_y = figure(results.baseline, x), figure(results.baseline, y)
    if at_x is None or at_y is None:
        return []
    text = f"<b>baseline</b> (uncompressed)<br>{esc(label(y))} {esc(at_y.full)}<br>{esc(label(x))} {esc(at_x.full)}"
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "baseline",
            "x": [at_x.value / _scale(results, x)[0]],
            "y": [at_y.value / _scale(results, y)[0]],
            "text": [text],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {"symbol": "star", "size": 15, "color": "var(--warm)"},
        }
    ]


def _limits(results: StudyRecord, x: str, y: str) -> list[dict[str, Any]]:
    shapes = []
    for constraint in results.constraints:
        for column, along, across in ((x, "x", "y"), (y, "y", "x")):
            if constraint.column == column:
                at = constraint.bound / _scale(results, column)[0]
                line = {"color": "var(--bad)", "width": 1, "dash": "dash"}
                ends = {
                    f"{along}0": at,
                    f"{along}1": at,
                    f"{across}0": 0,
                    f"{across}1": 1,
                    f"{across}ref": "paper",
                }
                name = {"text": esc(constraint.name), "font": {"size": 11, "color": "var(--bad)"}}
                shapes.append({"type": "line", "line": line, "label": name, **ends})
    return shapes


def hover(results: StudyRecord, record: TrialRecord, columns: Sequence[str]) -> str:
    """Returns the tooltip of a point, HTML: the trial, its figures with interval and source, its knobs."""
    lines = [f"<b>trial {record.number}</b> · {esc(record.state)}"]
    for column in columns:
        now = figure(record.measurements, column)
        if now is not None:
            lines.append(f"{esc(label(column))} {esc(now.full)} ({esc(now.source)})")
    metric = headline_metric(results)
    changed = change(results, record, metric) if metric else None
    if changed is not None:
        lines.append(f"against the baseline {esc(changed.full)}")
    knobs = [f"{esc(path)} = {esc(value)}" for path, value in knob_texts(record).items()]
    lines += knobs[:_MOST_KNOBS_IN_HOVER]
    if len(knobs) > _MOST_KNOBS_IN_HOVER:
        lines.append(f"and {len(knobs) - _MOST_KNOBS_IN_HOVER} more knobs")
    return "<br>".join(lines)
