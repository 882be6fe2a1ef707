"""Parallel coordinates: a vertical axis for each quantity, a line for each trial."""

from collections.abc import Sequence
from dataclasses import dataclass

from search.report.page.axis import Scale, scale
from search.report.page.markup import esc
from search.report.page.plot import figure, line, path, rect, text

_TOP, _BOTTOM, _FOOT, _SIDE = 58.0, 284.0, 20.0, 56.0
_STEP, _LEAST_STEP, _WIDE = 190.0, 110.0, 1180.0  # between two axes; of the whole, where it can be had
_LETTERS = 19  # of a name above an axis


@dataclass(frozen=True)
class Upright:
    """One axis; better is up.

    Attributes:
        name: What it is, plain text.
        unit: Unit and source, below the name.
        is_better_up: Whether larger values are better.
        limit: A limit, in the axis's unit, if any.
        limit_text: It as text.
    """

    name: str
    unit: str
    is_better_up: bool
    limit: float | None = None
    limit_text: str = ""


@dataclass(frozen=True)
class Thread:
    """One line.

    Attributes:
        values: Its value on each axis.
        css: Class of the line.
        tip: What is told of it; empty if it cannot be reached.
        anchor: `id` on the page that it leads to, if any.
    """

    values: Sequence[float]
    css: str
    tip: str = ""
    anchor: str = ""


def parallel(
    title: str, axes: Sequence[Upright], threads: Sequence[Thread], legend: Sequence[tuple[str, str]]
) -> str:
    """Returns the chart as HTML.

    Args:
        title: Its caption.
        axes: From left to right, at least two.
        threads: The lines, the last on top.
        legend: Names of the lines' classes, and what they mean.
    """
    step = min(_STEP, max(_LEAST_STEP, (_WIDE - 2 * _SIDE) / (len(axes) - 1)))
    width = 2 * _SIDE + step * (len(axes) - 1)
    places = [_SIDE + step * i for i in range(len(axes))]
    scales = [_scale(axis, [t.values[i] for t in threads]) for i, axis in enumerate(axes)]
    lines = [_thread(thread, places, scales) for thread in threads]
    drawn = [_axis(a, s, x, x == places[-1]) for a, s, x in zip(axes, scales, places, strict=True)]
    entries = "".join(
        f'<li><svg class="plot swatch" viewBox="0 0 20 20" aria-hidden="true">{line(0, 10, 20, 10, f"thread {css}")}'
        f"</svg>{esc(name)}</li>"
        for css, name in legend
    )
    note = "Better is up on every axis: " + ", ".join(a.name for a in axes)
    return figure(
        title, note, _BOTTOM + _FOOT, "".join(lines + drawn), legend=entries, is_group=True, width=width
    )


def _scale(axis: Upright, values: Sequence[float]) -> Scale:
    ends = (_BOTTOM, _TOP) if axis.is_better_up else (_TOP, _BOTTOM)
    return scale(values, *ends, near=[] if axis.limit is None else [axis.limit])


def _thread(thread: Thread, places: Sequence[float], scales: Sequence[Scale]) -> str:
    points = [(x, s.at(v)) for x, s, v in zip(places, scales, thread.values, strict=True)]
    drawn = path(points, f"thread {thread.css}")
    if not thread.tip:
        return drawn
    if not thread.anchor:
        return f'<g class="pt" role="img" aria-label="{esc(thread.tip)}">{drawn}</g>'
    return f'<a class="pt" href="#{esc(thread.anchor)}" aria-label="{esc(thread.tip)}">{drawn}</a>'


def _axis(axis: Upright, scale_: Scale, x: float, is_last: bool) -> str:
    anchor, aside = ("end", x - 6) if is_last else ("start", x + 6)
    ticks = [
        line(x - 3, scale_.at(v), x + 3, scale_.at(v), "axis")
        + text(aside, scale_.at(v) + 4, t, "halo", anchor)
        for v, t in scale_.ticks(5)
    ]
    limit = ""
    if axis.limit is not None and scale_.holds(axis.limit):
        at = scale_.at(axis.limit)
        limit = rect(x - 4, at, 8, max(_BOTTOM - at, 0.0), "beyond") + line(
            x - 12, at, x + 12, at, "limit strong"
        )
    names = text(x, 14, _shortened(axis.name), "bold", "middle") + text(x, 29, axis.unit, "quiet", "middle")
    if axis.limit_text:
        names += text(x, 44, axis.limit_text, "bad", "middle")
    return f'<g class="upright">{line(x, _TOP, x, _BOTTOM, "axis")}{limit}{"".join(ticks)}{names}</g>'


def _shortened(name: str) -> str:
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"
