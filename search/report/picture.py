"""The front as a picture: a panel per objective that is a cost, in one SVG file with colours of its own.

MLflow's page shows it in the description of the study and among its artifacts, a notebook below a cell: no styles of a report are there.
"""

import math
from collections.abc import Sequence
from html import escape

from search.record.results import StudyRecord, TrialRecord
from search.report.findings import numbers
from search.report.findings.figures import headline_metric, label, unit_of
from search.report.page.axis import scale

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 430, 300, 62, 30, 46
_GREY, _BLUE, _ORANGE, _INK = "#b0b7c3", "#1f6feb", "#d9730d", "#1f2328"
_ACROSS = 3  # panels in a row: MLflow scales the picture to the page
_MOST_POINTS = 2000


def front_picture(results: StudyRecord) -> str | None:
    """Returns an SVG with the metric over each cost that is an objective; None without a metric and a cost."""
    metric = headline_metric(results)
    costs = [o.column for o in results.objectives if o.column != metric]
    if metric is None or not costs:
        return None
    panels = [
        f'<g transform="translate({i % _ACROSS * _WIDTH} {i // _ACROSS * _HEIGHT})">{_panel(results, metric, cost)}</g>'
        for i, cost in enumerate(costs)
    ]
    width, height = _WIDTH * min(len(costs), _ACROSS), _HEIGHT * math.ceil(len(costs) / _ACROSS)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="11" fill="{_INK}"><rect width="{width}" height="{height}" fill="#ffffff"/>'
        f"{''.join(panels)}</svg>"
    )


def _panel(results: StudyRecord, metric: str, cost: str) -> str:
    trials = [t for t in results.trials if t.state in ("complete", "infeasible")][-_MOST_POINTS:]
    front = set(results.front)
    others = _points([t for t in trials if t.number not in front], metric, cost)
    on_front = _points([t for t in results.trials if t.number in front], metric, cost)
    before = {m.column: m.value for m in results.baseline}
    baseline = [("", before[cost], before[metric])] if cost in before and metric in before else []
    everything = [*others, *on_front, *baseline]
    if not everything:
        return ""
    place = _Place(everything)
    marks = [_dot(*place.at(x, y), 3, _GREY) for _, x, y in others]
    marks += [_diamond(*place.at(x, y)) for _, x, y in baseline]
    spots = [(name, *place.at(x, y)) for name, x, y in on_front]
    marks += [_dot(x, y, 5, _BLUE) for _, x, y in spots]
    marks += [_text(x + 8, y - 6, ", ".join(names)) for names, x, y in _merged(spots)]
    head = _text(_LEFT, 14, f"{label(metric)} over {label(cost, with_device=True)}", weight="bold") + _KEY
    return head + place.axes(unit_of(results, cost), unit_of(results, metric)) + "".join(marks)


def _merged(spots: Sequence[tuple[str, float, float]]) -> list[tuple[list[str], float, float]]:
    """Returns labels with their places: those of points that lie upon each other are one, at the rightmost of them."""
    groups: list[tuple[list[str], float, float]] = []
    for name, x, y in sorted(spots, key=lambda spot: spot[1:]):
        near = next((i for i, (_, a, b) in enumerate(groups) if x - a < 24 and abs(y - b) < 12), None)
        if near is None:
            groups.append(([name], x, y))
        else:
            groups[near] = ([*groups[near][0], name], x, groups[near][2])
    return groups


def _points(trials: Sequence[TrialRecord], metric: str, cost: str) -> list[tuple[str, float, float]]:
    """Returns number, cost and metric of the trials that have both."""
    rows = [(str(t.number), t.values().get(cost), t.values().get(metric)) for t in trials]
    return [
        (number, x, y)
        for number, x, y in rows
        if x is not None and y is not None and math.isfinite(x) and math.isfinite(y)
    ]


class _Place:
    """Where values are drawn, on the scales of the report's charts."""

    def __init__(self, points: Sequence[tuple[str, float, float]]) -> None:
        self._across = scale((x for _, x, _ in points), _LEFT, _WIDTH - 34)
        self._up = scale((y for _, _, y in points), _HEIGHT - _BOTTOM, _TOP + 8)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Returns the coordinates of a point."""
        return self._across.at(x), self._up.at(y)

    def axes(self, unit_x: str, unit_y: str) -> str:
        """Returns both axes with a few round values each, in their units."""
        left, right = self._across.start, self._across.end
        bottom, top = self._up.start, self._up.end
        parts = [
            _text(self._across.at(x), bottom + 16, numbers.quantity(x, unit_x), anchor="middle")
            for x, _ in self._across.ticks(5)
        ]
        parts += [
            _text(left - 6, self._up.at(y) + 4, numbers.quantity(y, unit_y), anchor="end")
            for y, _ in self._up.ticks(4)
        ]
        lines = f"M{left:.1f} {top:.1f}V{bottom:.1f}H{right:.1f}"
        return f'<path d="{lines}" fill="none" stroke="#8c959f"/>' + "".join(parts)


def _dot(x: float, y: float, radius: int, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}" fill-opacity="0.85"/>'


def _diamond(x: float, y: float) -> str:
    return f'<path d="M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7 -7z" fill="{_ORANGE}"/>'


def _text(
    x: float, y: float, words: str, anchor: str = "start", weight: str = "normal", colour: str = _INK
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{colour}">'
        f"{escape(words)}</text>"
    )


_KEY = "".join(
    _text(_LEFT + left, 27, mark, colour=colour) + _text(_LEFT + left + 12, 27, words, colour="#57606a")
    for left, mark, colour, words in (
        (0, "●", _BLUE, "front (trial numbers)"),
        (140, "◆", _ORANGE, "float model"),
        (225, "●", _GREY, "other trials"),
    )
)
