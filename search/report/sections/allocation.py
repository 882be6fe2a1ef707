"""The section on the allocator: bits and rounding of each layer, the losses that led there, and bits against loss."""

import math
from collections.abc import Mapping, Sequence

from search.record.results import StudyRecord, TrialRecord
from search.report.findings import numbers
from search.report.findings.allocation import Allocation, BudgetMark, Unit, allocation_of, rounding_of
from search.report.page.markup import Section, details, esc, table, trial_link
from search.report.page.plot import WIDTH, circle, decades, figure, line, path, power_of_ten, rect, text

_MOST_ROWS = 60
_ROW, _TOP, _NAMES, _SIZES = 20.0, 24.0, 158.0, 56.0  # of the drawing of layers
_LEFT, _RIGHT, _HEAD, _HEIGHT, _FOOT = 44.0, 14.0, 28.0, 290.0, 44.0  # of the curve
_LABEL = 14.0  # from one line of text to the next
_MOST_NAME = 22

Widths = Mapping[str, int]


def section(results: StudyRecord) -> Section | None:
    """Returns the section, or None if no allocator proposed candidates."""
    found = allocation_of(results)
    if found is None:
        return None
    best = None if results.best is None else results.trial(results.best)
    widths = None if best is None else found.widths_of(best)
    lead = (
        f"Every layer was quantized alone, its weights rounded to the nearest, and the {found.loss} was measured. The allocator's "
        "widths have the least sum of these losses among all that keep the budgets."
    )
    charts = [_curve(results, found, widths)]
    finding = tables = ""
    if best is not None and widths is not None:
        finding = _finding(found, best, widths)
        charts.insert(0, _layers(found, best, widths))
        tables = _table(found, best, widths)
    curve = table(
        ["bits per weight", found.loss], [[f"{b:.2f}", _short(x)] for b, x in found.curve], numeric=(0, 1)
    )
    body = (
        f'{finding}<div class="grid">{"".join(charts)}</div>{tables}{details("The curve as a table", curve)}'
    )
    return Section("allocation", "Bits of each layer", lead, body)


def _finding(found: Allocation, best: TrialRecord, widths: Widths) -> str:
    unit = found.most_sensitive()
    few = min(unit.losses)
    methods = sorted({rounding_of(best, u) for u in found.units} - {""})
    rounding = f", rounding {esc(numbers.listing(methods))}" if methods else ""
    return (
        f'<p class="finding">{trial_link(best.number)} has <strong>{found.place(widths)[0]:.2f} bits per weight</strong>{rounding}. '
        f"Most sensitive is <strong>{esc(unit.name)}</strong>: {_short(unit.losses[few])} at {few} bits; it has "
        f"{widths[unit.path]} bits.</p>"
    )


# -- the layers ----------------------------------------------------------------------------------------------


def _layers(found: Allocation, best: TrialRecord, widths: Widths) -> str:
    """Returns the drawing of layers by widths: the darker, the larger the loss; a number where the width was chosen."""
    units = _drawn(found.units)
    shade = _Shade(units)
    cell = (WIDTH - _NAMES - _SIZES) / len(found.widths)
    heads = [
        text(_NAMES + cell * (i + 0.5), _TOP - 8, f"{width} bits" if not i else str(width), "quiet", "middle")
        for i, width in enumerate(found.widths)
    ]
    rows = [
        _row(found, unit, widths[unit.path], _TOP + _ROW * i, cell, shade, rounding_of(best, unit))
        for i, unit in enumerate(units)
    ]
    foot = _TOP + _ROW * len(units) + 18
    heads.append(text(WIDTH, _TOP - 8, "weights", "quiet", "end"))
    title = f"Bits of each layer in trial {best.number}, over the loss at each width"
    if len(units) < len(found.units):
        title += f" (the {len(units)} most sensitive of {len(found.units)} layers)"
    described = "; ".join(f"{unit.name}: {widths[unit.path]} bits" for unit in units)
    return figure(title, described, foot + 8, "".join(heads + rows) + shade.legend(foot))


def _drawn(units: Sequence[Unit]) -> list[Unit]:
    """Returns the most sensitive units, in the network's order."""
    kept = sorted(units, key=lambda unit: -unit.losses[min(unit.losses)])[:_MOST_ROWS]
    paths = {unit.path for unit in kept}
    return [unit for unit in units if unit.path in paths]


class _Shade:
    """Opacities of losses on a logarithmic scale.

    Args:
        units: The units whose losses are drawn.
    """

    def __init__(self, units: Sequence[Unit]) -> None:
        losses = [loss for unit in units for loss in unit.losses.values() if loss > 0] or [1.0]
        self._low, self._high = min(losses), max(losses)

    def of(self, loss: float) -> float:
        if loss <= self._low:
            return 0.06
        share = math.log(loss / self._low) / math.log(self._high / self._low)
        return 0.06 + 0.84 * min(share, 1.0)

    def legend(self, y: float) -> str:
        steps = [rect(_NAMES + 12.0 * i, y - 9, 11, 10, "loss", 0.06 + 0.84 * i / 5) for i in range(6)]
        low = text(_NAMES - 6, y, f"loss {_short(self._low)}", "quiet", "end")
        return low + "".join(steps) + text(_NAMES + 78, y, _short(self._high), "quiet")


def _row(
    found: Allocation, unit: Unit, width: int, y: float, cell: float, shade: _Shade, rounding: str
) -> str:
    parts = [f"<g><title>{esc(unit.name)}</title>{text(0, y + 14, _shortened(unit.name))}</g>"]
    for i, bits in enumerate(found.widths):
        if bits in unit.losses:
            tip = f"{unit.name} at {bits} bits: {_short(unit.losses[bits])}"
            parts.append(
                rect(
                    _NAMES + cell * i + 1, y + 1, cell - 2, _ROW - 2, "loss", shade.of(unit.losses[bits]), tip
                )
            )
    x = _NAMES + cell * (found.widths.index(width) + 0.5)
    parts.append(
        rect(x - 11, y + 3, 22, _ROW - 6, "chosen", tip=f"{unit.name}: {width} bits {rounding}".rstrip())
    )
    parts.append(text(x, y + 14, str(width), "bold", "middle"))
    parts.append(text(WIDTH, y + 14, _count(unit.n_weights), "quiet", "end"))
    return "".join(parts)


def _table(found: Allocation, best: TrialRecord, widths: Widths) -> str:
    has_rounding = any(rounding_of(best, unit) for unit in found.units)
    rows = [
        [
            f"<code>{esc(unit.name)}</code>",
            f"{unit.n_weights:,}",
            str(widths[unit.path]),
            *([esc(rounding_of(best, unit))] if has_rounding else []),
            *(_short(unit.losses[w]) if w in unit.losses else "–" for w in found.widths),
        ]
        for unit in found.units
    ]
    heads = [
        "layer",
        "weights",
        "bits",
        *(["rounding"] if has_rounding else []),
        *(f"loss\n{w} bits" for w in found.widths),
    ]
    words = [3] if has_rounding else []
    numeric = [i for i in range(1, len(heads)) if i not in words]
    return details(
        f"Bits and losses of every layer in trial {best.number}", table(heads, rows, numeric=numeric)
    )


# -- the curve -----------------------------------------------------------------------------------------------


def _curve(results: StudyRecord, found: Allocation, chosen: Widths | None) -> str:
    """Returns the drawing of the least loss for every number of bits, with the trials and the budgets."""
    others = [(t.number, widths) for t in results.trials if (widths := found.widths_of(t)) is not None]
    places = {number: found.place(widths) for number, widths in others}
    axes = _Axes([*found.curve, *places.values()])
    dots = [
        circle(
            *axes.at(place),
            3.5,
            "trial",
            f"trial {number}: {place[0]:.2f} bits per weight, {_short(place[1])}",
        )
        for number, place in places.items()
    ]
    marks = [m for m in found.budgets if m.bits < found.curve[-1][0]]
    body = [axes.drawn(found.loss), path(_steps([axes.at(point) for point in found.curve]), "curve"), *dots]
    body += [_mark(axes, mark, i) for i, mark in enumerate(marks)]
    if chosen is not None:
        body.append(circle(*axes.at(found.place(chosen)), 7, "pick", f"trial {results.best}"))
    title = "Least loss for every number of bits (line), trials (dots)"
    title += ", the chosen one (ring), budgets (dashed)" if marks else ", the chosen one (ring)"
    (few, most_loss), (many, least_loss) = found.curve[0], found.curve[-1]
    described = f"The loss falls from {_short(most_loss)} at {few:.2f} bits per weight to {_short(least_loss)} at {many:.2f}. "
    described += " ".join(f"The budget {_mark_text(m)} allows {m.bits:.2f} bits per weight." for m in marks)
    return figure(title, described.strip(), _HEIGHT + _FOOT, "".join(body))


def _steps(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns the corners of steps: between two allocations the one with fewer bits is the best."""
    first, rest = points[0], points[1:]
    corners = [(x, y) for (_, y), (x, _) in zip(points, rest, strict=False)]
    return [first, *(place for pair in zip(corners, rest, strict=True) for place in pair)]


class _Axes:
    """Places of bits per weight and losses, the latter on a logarithmic scale.

    Args:
        points: All points that are drawn.
    """

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        bits = [x for x, _ in points]
        losses = [y for _, y in points if y > 0] or [1.0]
        self._first, self._last = math.floor(min(bits)), math.ceil(max(bits))
        self._last = max(self._last, self._first + 1)
        self._decades = decades(min(losses), max(losses))
        self._floor = min(losses)

    def at(self, point: tuple[float, float]) -> tuple[float, float]:
        """Returns the coordinates of bits and a loss."""
        return self.x(point[0]), self._y(math.log10(max(point[1], self._floor)))

    def x(self, bits: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (bits - self._first) / (self._last - self._first)

    def _y(self, exponent: float) -> float:
        low, high = self._decades[0], self._decades[-1]
        return _HEAD + (_HEIGHT - _HEAD) * (high - exponent) / (high - low)

    def drawn(self, loss: str) -> str:
        rows = [
            line(_LEFT, self._y(e), WIDTH - _RIGHT, self._y(e), "rule")
            + text(_LEFT - 6, self._y(e) + 4, power_of_ten(e), "quiet", "end")
            for e in self._decades
        ]
        columns = [
            text(self.x(b), _HEIGHT + 16, str(b), "quiet", "middle")
            for b in range(self._first, self._last + 1)
        ]
        names = text((_LEFT + WIDTH - _RIGHT) / 2, _HEIGHT + 36, "bits per weight", "quiet", "middle")
        return "".join(rows + columns) + names + text(0, _HEAD - 16, f"sum over layers: {loss}", "quiet")


def _mark(axes: _Axes, mark: BudgetMark, i: int) -> str:
    x, y = axes.x(mark.bits), _HEAD + _LABEL * (i + 1)
    on_left = x > WIDTH / 2
    label = text(x - 5 if on_left else x + 5, y, _mark_text(mark), "bad", "end" if on_left else "start")
    return line(x, _HEAD, x, _HEIGHT, "budget") + label


def _mark_text(mark: BudgetMark) -> str:
    if "bytes" in mark.name.split(" on ", 1)[0].split("_"):
        return f"{mark.name} ≤ {numbers.quantity(mark.limit, 'bytes')}"
    return f"{mark.name} ≤ {numbers.plain(mark.limit)}"


def _short(loss: float) -> str:
    return f"{loss:.2g}" if 0.01 <= loss < 1000 or loss == 0 else f"{loss:.1e}"


def _count(n: int) -> str:
    return f"{n / 1e6:.1f} M" if n >= 1e6 else f"{n / 1e3:.1f} k" if n >= 1000 else str(n)


def _shortened(name: str) -> str:
    """Returns the end of a name: networks number their layers from the left."""
    plain = name.replace(".weight", "")
    return plain if len(plain) <= _MOST_NAME else f"…{plain[1 - _MOST_NAME :]}"
