"""The front as a picture: a panel per objective that is a cost, in one SVG file with colours of its own.

MLflow's page shows it in the description of the study and among its artifacts: no styles of a report are there.
"""

import math
from collections.abc import Sequence
from html import escape

from search.record.results import StudyRecord, TrialRecord
from search.report.findings import numbers
from search.report.findings.figures import headline_metric, label, unit_of

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
    """Where values are drawn, from the smallest to the largest one with a margin."""

    def __init__(self, points: Sequence[tuple[str, float, float]]) -> None:
        self._x, self._y = _range([x for _, x, _ in points]), _range([y for _, _, y in points])

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Returns the coordinates of a point."""
        across = (x - self._x[0]) / (self._x[1] - self._x[0])
        up = (y - self._y[0]) / (self._y[1] - self._y[0])
        return (
            _LEFT + across * (_WIDTH - _LEFT - 34),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _BOTTOM - _TOP - 8),
        )

    def axes(self, unit_x: str, unit_y: str) -> str:
        """Returns both axes with three values each, in their units."""
        parts = []
        for i in range(3):
            x = self._x[0] + (0.06 + 0.44 * i) * (self._x[1] - self._x[0])
            y = self._y[0] + (0.06 + 0.44 * i) * (self._y[1] - self._y[0])
            left, bottom = self.at(x, self._y[0])
            parts.append(_text(left, bottom + 16, numbers.quantity(x, unit_x), anchor="middle"))
            left, bottom = self.at(self._x[0], y)
            parts.append(_text(left - 6, bottom + 4, numbers.quantity(y, unit_y), anchor="end"))
        (x1, y1), (x2, y2) = self.at(self._x[0], self._y[0]), self.at(self._x[1], self._y[1])
        lines = f"M{x1:.1f} {y2:.1f}V{y1:.1f}H{x2:.1f}"
        return f'<path d="{lines}" fill="none" stroke="#8c959f"/>' + "".join(parts)


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.07 * (high - low) or abs(high) * 0.05 or 1.0
    return low - margin, high + margin


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
