"""Static charts as SVG: they need no script, scale with the column, and follow the page's colours."""

import math
from collections.abc import Sequence

from search.report.page.markup import esc, scrolling

WIDTH = 420  # of every chart's coordinates, so that texts keep their size on a narrow screen
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def figure(
    title: str,
    note: str,
    height: float,
    body: str,
    *,
    legend: str = "",
    is_group: bool = False,
    width: float = WIDTH,
) -> str:
    """Returns a figure with its caption.

    Args:
        title: What the chart shows: its caption, and its name for screen readers.
        note: What can be seen in it, in words, for screen readers.
        height: Of the coordinates.
        body: SVG elements.
        legend: List items of the legend, HTML.
        is_group: Whether the elements can be reached one by one; else the chart is one image.
        width: Of the coordinates; a chart that is wider than `WIDTH` scrolls sideways on a narrow screen.
    """
    name = esc(". ".join(filter(None, [title, note])))
    drawn = (
        f'<svg class="plot" viewBox="0 0 {width:.0f} {height:.0f}" role="{"group" if is_group else "img"}" '
        f'aria-label="{name}">{body}</svg>'
    )
    if width > WIDTH:
        drawn = scrolling(
            f'<div class="wide" style="min-width:{width:.0f}px;max-width:{1.3 * width:.0f}px">{drawn}</div>',
            title,
        )
    listed = f'<ul class="legend">{legend}</ul>' if legend else ""
    return f'<figure class="chart"><figcaption>{esc(title)}</figcaption>{listed}{drawn}</figure>'


def text(x: float, y: float, words: str, css: str = "", anchor: str = "start") -> str:
    """Returns a text; `css` is a class, `anchor` what of it is at `x`."""
    named = f' class="{css}"' if css else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{esc(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """Returns a straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def path(points: Sequence[tuple[float, float]], css: str) -> str:
    """Returns a line through points."""
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{joined}" class="{css}"/>'


def circle(x: float, y: float, radius: float, css: str, tooltip: str = "") -> str:
    """Returns a circle, with a text that is shown where the pointer is on it."""
    inner = f"<title>{esc(tooltip)}</title>" if tooltip else ""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="{css}">{inner}</circle>'


def rect(
    x: float, y: float, width: float, height: float, css: str, opacity: float = 1.0, tip: str = ""
) -> str:
    """Returns a rectangle, with a text that is shown where the pointer is on it."""
    inner = f"<title>{esc(tip)}</title>" if tip else ""
    faded = f' fill-opacity="{opacity:.2f}"' if opacity < 1 else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" class="{css}"{faded}>{inner}</rect>'


def power_of_ten(exponent: int) -> str:
    """Returns e.g. `10⁻³`."""
    return "10" + str(exponent).translate(_SUPERSCRIPTS)


def decades(low: float, high: float, most: int = 6) -> list[int]:
    """Returns exponents of powers of ten from below `low` to above `high`, at most about `most` of them."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = max(1, math.ceil((last - first) / most))
    return list(range(first, max(last, first + 1) + step, step))
