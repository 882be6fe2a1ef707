"""The front of a sweep: which lines no other one beats, as a chart and as parallel coordinates."""

from collections.abc import Sequence

import numpy as np

from search.cli.fleet import Fleet, Line
from search.cli.fleet_units import label_of, possible, text_of, unit_of_name
from search.cli.statistics import interval
from search.record.nondomination import non_dominated
from search.report.page.chart import Axis, Point, Series, chart
from search.report.page.markup import Section
from search.report.page.parallel import Thread, Upright, parallel

ON_FRONT = "no other line on the same device is at least as good in the metric and in the cost of the chart, and better in one"
_COSTS = ("latency_ms", "file_bytes")  # the first that a sweep has is drawn
_MOST_COLOURS = 6
_MOST_AXES = 9


def line_anchor(index: int) -> str:
    """Returns the `id` of a line in the table."""
    return f"line-{index}"


def front_lines(found: Fleet) -> set[int]:
    """Returns the indices of the lines that no other line of their device beats; empty without a metric or a cost."""
    axes = _axes(found)
    if axes is None:
        return set()
    across, up = axes
    sign = 1.0 if _is_better_up(found, up) else -1.0
    kept: set[int] = set()
    for device in dict.fromkeys(line.device for line in found.lines):
        known = [i for i in _drawn(found, axes) if found.lines[i].device == device]
        points = [[sign * _mean(found.lines[i], up), -_mean(found.lines[i], across)] for i in known]
        on_front = non_dominated(np.array(points).reshape(len(known), 2))
        kept |= {i for i, is_kept in zip(known, on_front, strict=True) if is_kept}
    return kept


def front_section(found: Fleet) -> list[Section]:
    """Returns the section; none where a sweep has no metric or no cost."""
    axes = _axes(found)
    if axes is None or not _drawn(found, axes):
        return []
    across, up = axes
    kept = front_lines(found)
    series = []
    for i, device in enumerate(dict.fromkeys(found.lines[i].device for i in _drawn(found, axes))):
        css = f"c{i % _MOST_COLOURS}"
        own = [n for n in _drawn(found, axes) if found.lines[n].device == device]
        edge = sorted((n for n in own if n in kept), key=lambda n: _mean(found.lines[n], across))
        points = {n: _point(found, n, axes) for n in own}
        series.append(Series("", css, [points[n] for n in edge], "", "steps"))
        series.append(Series(device or "studies", css, list(points.values())))
        series.append(Series("front" if not i else "", css, [points[n] for n in edge], "ring"))
    title = f"{label_of(up)} against {label_of(across)}"
    drawn = chart(title, series, _axis(found, across), _axis(found, up))
    lead = f"Front: {ON_FRONT}. Points and lines lead to the table."
    return [Section("front", "Front of the sweep", lead, drawn + _parallel(found, kept))]


def _axes(found: Fleet) -> tuple[str, str] | None:
    across = next((n for n in _COSTS if n in found.names), None)
    metrics = [n for n in found.names if not unit_of_name(n)]
    up = next((n for n in metrics if n.startswith("test_")), next(iter(metrics), None))
    return None if across is None or up is None else (across, up)


def _drawn(found: Fleet, axes: tuple[str, str]) -> list[int]:
    return [i for i, line in enumerate(found.lines) if all(line.values(name) for name in axes)]


def _axis(found: Fleet, name: str) -> Axis:
    unit = _scale(found, name)[1]
    return Axis(f"{label_of(name)} ({unit})" if unit else label_of(name))


def _mean(line: Line, name: str) -> float:
    return float(np.mean(line.values(name)))


def _is_better_up(found: Fleet, name: str) -> bool:
    """Whether higher values of a metric are better: its drops say so, where a line has any."""
    for line in found.lines:
        for s in line.shipped:
            drop = s.values.get(f"{name}_drop")
            if name in s.values and name in s.baseline and drop:
                return (s.values[name] - s.baseline[name]) * drop < 0
    return not unit_of_name(name)


def _scale(found: Fleet, name: str) -> tuple[float, str]:
    unit = next((unit for line in found.lines if (unit := line.unit(name))), "")
    return (1024.0, "KiB") if unit == "bytes" else (1.0, unit)


def ends_of(line: Line, name: str) -> tuple[float, float] | None:
    """Returns the interval of a value: over the seeds, or within the only study; None if it has none."""
    values = line.values(name)
    ends = interval(values) if len(values) > 1 else line.ends(name)
    return None if ends is None else possible(name, ends, line.unit(name))


def _point(found: Fleet, index: int, axes: tuple[str, str]) -> Point:
    line, places, ends = found.lines[index], [], []
    for name in axes:
        by, own = _scale(found, name)[0], ends_of(line, name)
        places.append(_mean(line, name) / by)
        ends.append(None if own is None else (own[0] / by, own[1] / by))
    return Point(places[0], places[1], _told(found, line, axes), line_anchor(index), ends[0], ends[1])


def _told(found: Fleet, line: Line, names: Sequence[str]) -> str:
    settings = [f"{key}: {value}" for key, value in zip(found.settings, line.settings, strict=True)]
    figures = [f"{label_of(n)} {text_of(_mean(line, n), line.unit(n))}" for n in names if line.values(n)]
    return "\n".join([line.device or "study", *settings, *figures])


def _parallel(found: Fleet, kept: set[int]) -> str:
    """Returns all values side by side; empty if the chart shows them all."""
    names = [n for n in found.names if len({_mean(line, n) for line in found.lines if line.values(n)}) > 1]
    names = [n for n in names if sum(bool(line.values(n)) for line in found.lines) > 1][:_MOST_AXES]
    shown = [i for i, line in enumerate(found.lines) if all(line.values(n) for n in names)]
    if len(names) < 3 or len(shown) < 2:
        return ""
    threads = [
        Thread(
            [_mean(found.lines[i], n) / _scale(found, n)[0] for n in names],
            "front" if i in kept else "other",
            _told(found, found.lines[i], names),
            line_anchor(i),
        )
        for i in sorted(shown, key=lambda i: i in kept)
    ]
    axes = [Upright(label_of(n), _scale(found, n)[1], _is_better_up(found, n)) for n in names]
    return parallel(
        "All values side by side; better is up", axes, threads, [("front", "front"), ("other", "other line")]
    )
