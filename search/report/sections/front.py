"""The section on the Pareto front: charts of the metric against each cost, parallel coordinates, and a table."""

import math
from collections.abc import Sequence

from evaluators.column import Column
from search.record.results import StudyRecord, TrialRecord
from search.report.findings import numbers
from search.report.findings.figures import (
    Figure,
    change,
    costs,
    devices,
    direction,
    figure,
    headline_metric,
    label,
    sources_of,
    split_label,
    unit_of,
)
from search.report.page.chart import Axis, Point, Series, chart
from search.report.page.markup import Section, trial_anchor
from search.report.page.parallel import Thread, Upright, parallel
from search.report.sections.front_table import front_table

_MOST_THREADS = 150
_MOST_AXES = 9


def section(results: StudyRecord) -> Section | None:
    """Returns the front as charts and as a table, or None if there is a single objective."""
    axes = _axes(results)
    if not axes:
        return None
    drawn = "".join(_chart(results, x, y, device) for device, pairs in axes.items() for x, y in pairs)
    lead = (
        f"{numbers.counted(len(results.front), 'model')} on the Pareto front: no other model that met every "
        "constraint, the float model included, is at least as good in every objective and better in one."
    )
    if not results.front:
        lead = "The front is empty: no trial met every constraint."
    lead += " Points and lines lead to the table of all trials; the arrow keys go from one to the next."
    n_without = sum(t.state in ("failed", "pruned") and not t.measurements for t in results.trials)
    note = (
        f"<p>{numbers.counted(n_without, 'failed trial')} without measurements cannot be drawn.</p>"
        if n_without
        else ""
    )
    return Section(
        "front",
        "Pareto front",
        lead,
        f'<div class="grid">{drawn}</div>{note}{_parallel(results)}{front_table(results)}',
    )


# -- the metric against each cost ----------------------------------------------------------------------------


def _axes(results: StudyRecord) -> dict[str, list[tuple[str, str]]]:
    """Returns, per device (`""` where there is none), the (x, y) columns of each chart."""
    if not results.objectives:
        return {}
    y = results.objectives[0].column
    axes: dict[str, list[tuple[str, str]]] = {}
    for device in devices(results):
        height = y if y not in costs(results, device) else (headline_metric(results) or y)
        pairs = [(x, height) for x in costs(results, device) if x != height and _differs(results, x)]
        if pairs:
            axes[device] = pairs
    others = [(o.column, y) for o in results.objectives[1:] if not Column.parse(o.column).is_cost]
    return {**axes, **({"": others} if others else {})}


def _differs(results: StudyRecord, column: str) -> bool:
    """Whether a column has more than one value."""
    base = figure(results.baseline, column)
    values = {t.values()[column] for t in results.trials if column in t.values()}
    return len(values | ({base.value} if base else set())) > 1


def _chart(results: StudyRecord, x: str, y: str, device: str) -> str:
    placed = [t for t in results.trials if x in t.values() and y in t.values()]
    on_front = [t for t in placed if t.number in results.front]
    other = [t for t in placed if t.state == "complete" and t.number not in results.front]
    rejected = [t for t in placed if t.state != "complete"]
    picked: set[int | None] = {p.number for p in results.picks if p.device == device} or {results.best}
    chosen = [t for n in picked if n is not None and {x, y} <= (t := results.trial(n)).values().keys()]
    series = [
        Series("breaks a limit", "other", _points(results, rejected, x, y), "cross"),
        Series("other trial", "other", _points(results, other, x, y)),
        Series("", "front", _edge(results, placed, x, y), "", "steps"),
        Series("float model", "base", _baseline(results, x, y), "star"),
        Series("front", "front", _points(results, on_front, x, y)),
        Series("pick", "picked", _points(results, chosen, x, y), "ring"),
    ]
    title = f"{label(y)} against {label(x)}" + (f" on {device}" if device else "")
    return chart(title, series, _axis(results, x), _axis(results, y))


def _scale(results: StudyRecord, column: str) -> tuple[float, str]:
    """Returns the divisor of a column's values and the unit to show: bytes are drawn as KiB."""
    unit = unit_of(results, column)
    return (1024.0, "KiB") if unit == "bytes" else (1.0, unit)


def _axis(results: StudyRecord, column: str) -> Axis:
    qualifier = _qualifier(results, column)
    name = split_label(results, column)
    title = f"{name} ({qualifier})" if qualifier else name
    return Axis(title, _limits(results, column))


def _qualifier(results: StudyRecord, column: str) -> str:
    return ", ".join(filter(None, [_scale(results, column)[1], "/".join(sources_of(results, column))]))


def _limits(results: StudyRecord, column: str) -> list[tuple[str, float]]:
    """Returns the limits on a column, those on its drop as values of the column itself."""
    by, unit = _scale(results, column)
    bounds = [(c.kind, c.bound) for c in results.constraints if c.column == column]
    base = figure(results.baseline, column)
    if base is not None:
        is_better_up = direction(results, column) == "maximize"
        sign = -1.0 if is_better_up else 1.0
        drops = [c.bound for c in results.constraints if c.column == f"{column}_drop" and c.kind == "max"]
        bounds += [("min" if is_better_up else "max", base.value + sign * drop) for drop in drops]
    return [
        (
            f"{'≤' if kind == 'max' else '≥'} {numbers.plain(float(f'{bound / by:.4g}'))} {unit}".rstrip(),
            bound / by,
        )
        for kind, bound in bounds
    ]


def _points(results: StudyRecord, trials: Sequence[TrialRecord], x: str, y: str) -> list[Point]:
    return [
        _point(
            results,
            figure(t.measurements, x),
            figure(t.measurements, y),
            x,
            y,
            told(results, t, (y, x)),
            t.number,
        )
        for t in trials
    ]


def _point(
    results: StudyRecord,
    at_x: Figure | None,
    at_y: Figure | None,
    x: str,
    y: str,
    tip: str,
    trial: int | None,
) -> Point:
    assert at_x is not None
    assert at_y is not None
    by_x, by_y = _scale(results, x)[0], _scale(results, y)[0]
    on_front = trial is None or trial in results.front
    ends = (_ends(at_x, by_x), _ends(at_y, by_y)) if on_front else (None, None)
    return Point(
        at_x.value / by_x, at_y.value / by_y, tip, "" if trial is None else trial_anchor(trial), *ends
    )


def _ends(value: Figure, by: float) -> tuple[float, float] | None:
    return None if value.low is None or value.high is None else (value.low / by, value.high / by)


def _edge(results: StudyRecord, placed: Sequence[TrialRecord], x: str, y: str) -> list[Point]:
    """Returns the front over these two axes alone; a front over more objectives may lie behind it."""
    signs = {c: 1.0 if direction(results, c) == "minimize" else -1.0 for c in (x, y)}
    feasible = [t.values() for t in placed if t.state == "complete"]
    by_x, by_y = _scale(results, x)[0], _scale(results, y)[0]
    edge, best = [], math.inf
    for values in sorted(feasible, key=lambda v: (signs[x] * v[x], signs[y] * v[y])):
        if signs[y] * values[y] < best:
            best = signs[y] * values[y]
            edge.append(Point(values[x] / by_x, values[y] / by_y))
    return edge


def _baseline(results: StudyRecord, x: str, y: str) -> list[Point]:
    at_x, at_y = figure(results.baseline, x), figure(results.baseline, y)
    if at_x is None or at_y is None:
        return []
    tip = f"float model\n{label(y)} {at_y.full}\n{label(x)} {at_x.full}"
    return [_point(results, at_x, at_y, x, y, tip, None)]


def told(results: StudyRecord, record: TrialRecord, columns: Sequence[str]) -> str:
    """Returns what is told of a point, in lines: the trial, its figures with interval and source."""
    lines = [f"trial {record.number}, {'on the front' if record.number in results.front else record.state}"]
    for column in columns:
        now = figure(record.measurements, column)
        if now is not None:
            lines.append(f"{split_label(results, column, with_device=True)} {now.full} ({now.source})")
    metric = headline_metric(results)
    changed = change(results, record, metric) if metric else None
    if changed is not None:
        lines.append(f"against the float model {changed.full}")
    return "\n".join(lines)


# -- parallel coordinates ------------------------------------------------------------------------------------


def _parallel(results: StudyRecord) -> str:
    """Returns all objectives and limited columns side by side; empty if one chart shows them all."""
    columns = _compared(results)
    if len(columns) < 3:
        return ""
    placed = [t for t in results.trials if all(c in t.values() for c in columns)]
    others = [t for t in placed if t.number not in results.front][-_MOST_THREADS:]
    on_front = [t for t in placed if t.number in results.front]
    picked = {results.best, *(p.number for p in results.picks)}
    threads = [
        *(_thread(results, t, columns, *_beside(results, t, columns)) for t in others),
        *_float_thread(results, columns),
        *(
            _thread(results, t, columns, "front", told(results, t, columns))
            for t in on_front
            if t.number not in picked
        ),
        *(
            _thread(results, t, columns, "picked", told(results, t, columns))
            for t in on_front
            if t.number in picked
        ),
    ]
    used = {thread.css for thread in threads}
    legend = [entry for entry in _LEGEND if entry[0] in used]
    return parallel(
        "All objectives side by side; better is up", [_upright(results, c) for c in columns], threads, legend
    )


def _beside(results: StudyRecord, record: TrialRecord, columns: Sequence[str]) -> tuple[str, str]:
    """Returns the class of a trial that is not on the front, and what is told of it where the front is empty."""
    css = "other" if record.state == "complete" else "other dashed"
    return css, "" if results.front else told(results, record, columns)


_LEGEND = (
    ("picked", "pick"),
    ("front", "front"),
    ("base", "float model"),
    ("other", "other trial"),
    ("other dashed", "breaks a limit"),
)


def _compared(results: StudyRecord) -> list[str]:
    """Returns the objectives and the limited columns whose values differ."""
    wanted = [o.column for o in results.objectives]
    wanted += [c.column for c in results.constraints if not c.column.endswith(("_drop", "_low", "_high"))]
    return [c for c in dict.fromkeys(wanted) if _differs(results, c)][:_MOST_AXES]


def _thread(
    results: StudyRecord, record: TrialRecord, columns: Sequence[str], css: str, tip: str = ""
) -> Thread:
    values = [record.values()[c] / _scale(results, c)[0] for c in columns]
    return Thread(values, css, tip, trial_anchor(record.number) if tip else "")


def _float_thread(results: StudyRecord, columns: Sequence[str]) -> list[Thread]:
    known = [figure(results.baseline, c) for c in columns]
    if any(f is None for f in known):
        return []
    shown = [(c, f) for c, f in zip(columns, known, strict=True) if f is not None]
    tip = "\n".join(["float model", *(f"{label(c, with_device=True)} {f.full}" for c, f in shown)])
    return [Thread([f.value / _scale(results, c)[0] for c, f in shown], "base", tip)]


def _upright(results: StudyRecord, column: str) -> Upright:
    limits = _limits(results, column)
    text, limit = limits[0] if limits else ("", None)
    parsed = Column.parse(column)
    unit = ", ".join(filter(None, [_scale(results, column)[1], parsed.device or ""]))
    return Upright(label(column), unit, direction(results, column) == "maximize", limit, text)
