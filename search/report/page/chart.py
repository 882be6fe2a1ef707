"""Charts of points and lines over two axes, as SVG whose points can be reached with the keyboard."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from search.report.page.axis import Scale, scale
from search.report.page.markup import esc
from search.report.page.plot import WIDTH, circle, figure, line, path, text

_LEFT, _RIGHT, _TOP, _FOOT = 50.0, 12.0, 24.0, 40.0
_CHARACTER = 6.6  # width of a letter in the chart's coordinates
HEIGHT = 280.0
_MOST_LINKED = 100  # points of a series; more of them are drawn as one path, which is small


@dataclass(frozen=True)
class Point:
    """One point of a chart.

    Attributes:
        x: Place on the horizontal axis.
        y: Place on the vertical axis.
        tip: What is told of it: lines of text.
        anchor: `id` on the page that it leads to, if any.
        x_ends: Ends of its interval.
        y_ends: Ends of its interval.
    """

    x: float
    y: float
    tip: str = ""
    anchor: str = ""
    x_ends: tuple[float, float] | None = None
    y_ends: tuple[float, float] | None = None


@dataclass(frozen=True)
class Series:
    """Points of one kind.

    Attributes:
        name: Its entry in the legend; empty for none.
        css: Class of its marks and lines.
        points: The points, in the line's order.
        mark: How a point is drawn; empty for a line alone.
        line: Whether, and how, the points are joined; `steps` go sideways first.
    """

    name: str
    css: str
    points: Sequence[Point]
    mark: Literal["dot", "cross", "star", "ring", ""] = "dot"
    line: Literal["straight", "steps", ""] = ""


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        title: What it shows, with the unit.
        limits: Names and places of limits on it.
        from_zero: Whether it begins at 0.
        is_count: Whether its values are whole numbers.
    """

    title: str
    limits: Sequence[tuple[str, float]] = ()
    from_zero: bool = False
    is_count: bool = False


def chart(title: str, series: Sequence[Series], x: Axis, y: Axis, note: str = "") -> str:
    """Returns a chart as HTML.

    Args:
        title: Its caption and its name for screen readers.
        series: What is drawn, the last on top; those without points are left out.
        x: The horizontal axis.
        y: The vertical axis.
        note: What can be seen in it, in words, for screen readers.
    """
    series = [s for s in series if s.points]
    points = [p for s in series for p in s.points]
    across = _scale(x, [v for p in points for v in (p.x, *(p.x_ends or ()))], _LEFT, WIDTH - _RIGHT)
    up = _scale(y, [v for p in points for v in (p.y, *(p.y_ends or ()))], HEIGHT - _FOOT, _TOP)
    body = _grid(across, up, x, y) + _limits(across, up, x, y)
    body += "".join(_lines(s, across, up) for s in series if s.line)
    body += "".join(_whiskers(s, across, up) for s in series)
    body += "".join(_marks(s, across, up) for s in series if s.mark)
    beyond = [
        name for axis, ends in ((x, across), (y, up)) for name, value in axis.limits if not ends.holds(value)
    ]
    legend = [_entry(s) for s in series if s.name]
    if any(ends.holds(v) for axis, ends in ((x, across), (y, up)) for _, v in axis.limits):
        legend.append('<li><span class="swatch limit"></span>limit</li>')
    legend += [f"<li>{esc(name)}: beyond the chart</li>" for name in beyond]
    return figure(title, note, HEIGHT, body, legend="".join(legend), is_group=any(s.mark for s in series))


def _scale(axis: Axis, values: Sequence[float], start: float, end: float) -> Scale:
    return scale(values, start, end, near=[v for _, v in axis.limits], from_zero=axis.from_zero)


def _grid(across: Scale, up: Scale, x: Axis, y: Axis) -> str:
    left, right, bottom = across.start, across.end, up.start
    rows = [
        line(left, up.at(v), right, up.at(v), "rule") + text(left - 6, up.at(v) + 4, t, "quiet", "end")
        for v, t in up.ticks(5, are_whole=y.is_count)
    ]
    ticks = across.ticks(6, are_whole=x.is_count)
    step = 2 if sum(len(t) + 2 for _, t in ticks) * _CHARACTER > right - left else 1
    columns = [
        line(across.at(v), bottom, across.at(v), bottom + 4, "rule")
        + text(across.at(v), bottom + 18, t, "quiet", "middle")
        for v, t in ticks[::step]
    ]
    names = text(0, 11, y.title, "name") + text(right, HEIGHT - 5, x.title, "name", "end")
    return "".join(rows + columns) + line(left, bottom, right, bottom, "axis") + names


def _limits(across: Scale, up: Scale, x: Axis, y: Axis) -> str:
    parts = []
    for name, value in x.limits:
        if across.holds(value):
            at = across.at(value)
            on_left = at > (across.start + across.end) / 2
            parts.append(line(at, up.end, at, up.start, "limit"))
            parts.append(
                text(at - 4 if on_left else at + 4, up.end + 10, name, "bad", "end" if on_left else "start")
            )
    for name, value in y.limits:
        if up.holds(value):
            parts.append(line(across.start, up.at(value), across.end, up.at(value), "limit"))
            parts.append(text(across.end, up.at(value) - 5, name, "bad", "end"))
    return "".join(parts)


def _lines(series: Series, across: Scale, up: Scale) -> str:
    places = [(across.at(p.x), up.at(p.y)) for p in series.points]
    if series.line == "steps":
        corners = [(b[0], a[1]) for a, b in pairwise(places)]
        places = [places[0], *(place for pair in zip(corners, places[1:], strict=True) for place in pair)]
    return path(places, f"line {series.css}")


def _whiskers(series: Series, across: Scale, up: Scale) -> str:
    css, parts = f"whisker {series.css}", []
    for p in series.points:
        if p.x_ends is not None:
            parts.append(line(across.at(p.x_ends[0]), up.at(p.y), across.at(p.x_ends[1]), up.at(p.y), css))
        if p.y_ends is not None:
            parts.append(line(across.at(p.x), up.at(p.y_ends[0]), across.at(p.x), up.at(p.y_ends[1]), css))
    return "".join(parts)


def _marks(series: Series, across: Scale, up: Scale) -> str:
    if len(series.points) > _MOST_LINKED and series.mark in ("dot", "cross"):
        return _joined(series, across, up)
    return "".join(_link(p, _mark(series, across.at(p.x), up.at(p.y)), series) for p in series.points)


def _joined(series: Series, across: Scale, up: Scale) -> str:
    """Returns the marks of many points as one path, without what is told of each."""
    shape, kind = ("m-4 -4l8 8m0-8l-8 8", "cross") if series.mark == "cross" else ("h0", "dots")
    marks = "".join(f"M{across.at(p.x):.1f} {up.at(p.y):.1f}{shape}" for p in series.points)
    return f'<path d="{marks}" class="mark {series.css} {kind}"/>'


def _link(point: Point, mark: str, series: Series) -> str:
    """Returns a mark that leads to its row and is told to a reader who points at it or moves to it."""
    if not point.tip or series.mark == "ring":
        return mark
    if not point.anchor:
        return f'<g class="pt" role="img" aria-label="{esc(point.tip)}">{mark}</g>'
    return f'<a class="pt" href="#{esc(point.anchor)}" aria-label="{esc(point.tip)}">{mark}</a>'


def _mark(series: Series, x: float, y: float) -> str:
    css = f"mark {series.css}"
    if series.mark == "cross":
        return f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0-8l-8 8" class="{css} cross"/>'
    if series.mark == "star":
        return f'<path d="M{x:.1f} {y - 8:.1f}l2.2 5.3 5.6.4-4.3 3.7 1.3 5.6-4.8-3-4.8 3 1.3-5.6-4.3-3.7 5.6-.4z" class="{css}"/>'
    if series.mark == "ring":
        return circle(x, y, 9, f"ring {series.css}")
    return circle(x, y, 4.5, css)


def _entry(series: Series) -> str:
    """Returns an entry of the legend, with the mark as it is drawn."""
    inner = line(0, 9, 18, 9, f"line {series.css}") if series.line else ""
    inner += _mark(series, 9, 9) if series.mark else ""
    return f'<li><svg class="plot swatch" viewBox="-1 -1 20 20" aria-hidden="true">{inner}</svg>{esc(series.name)}</li>'
