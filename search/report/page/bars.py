"""Bars: lying ones of HTML beside their names, and standing, stacked ones as SVG."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from search.report.page.axis import scale
from search.report.page.markup import esc
from search.report.page.plot import WIDTH, figure, line, rect, text

_LEFT, _TOP, _FOOT = 50.0, 24.0, 30.0
HEIGHT = 240.0


@dataclass(frozen=True)
class Bar:
    """One lying bar.

    Attributes:
        name: What it is of, plain text.
        share: Its length, 0 to 1.
        text: Its value.
        ends: Ends of its interval, 0 to 1.
    """

    name: str
    share: float
    text: str
    ends: tuple[float, float] | None = None


def bar(share: float, css: str = "", ends: tuple[float, float] | None = None) -> str:
    """Returns a bar that is filled to a share of its length, as HTML; its value is written beside it."""
    whisker = ""
    if ends is not None:
        low, high = (100 * min(max(e, 0.0), 1.0) for e in ends)
        whisker = f'<i style="left:{low:.1f}%;width:{high - low:.1f}%"></i>'
    filled = f'<b style="width:{100 * min(max(share, 0.0), 1.0):.1f}%"></b>'
    return f'<span class="{f"bar {css}".rstrip()}" aria-hidden="true">{filled}{whisker}</span>'


def bars(title: str, rows: Sequence[Bar]) -> str:
    """Returns a chart of lying bars with their names and values."""
    items = [f"<dt>{esc(b.name)}</dt><dd>{bar(b.share, '', b.ends)}{esc(b.text)}</dd>" for b in rows]
    return f'<figure class="chart"><figcaption>{esc(title)}</figcaption><dl class="bars">{"".join(items)}</dl></figure>'


@dataclass(frozen=True)
class Stack:
    """One standing bar.

    Attributes:
        parts: Heights from the bottom up.
        tip: What is told of it.
    """

    parts: Sequence[float]
    tip: str


def stacked(
    title: str,
    stacks: Sequence[Stack],
    names: Sequence[str],
    unit: str,
    limit: float | None = None,
    note: str = "",
) -> str:
    """Returns a chart of standing bars, from left to right.

    Args:
        title: Its caption.
        stacks: The bars.
        names: What the parts are, from the bottom up; part `i` has the class `part<i>`.
        unit: Of the heights, with their name.
        limit: Height of a limit that is drawn, if it is not far above the bars.
        note: What can be seen in it, in words.
    """
    near = [] if limit is None else [limit]
    up = scale([sum(s.parts) for s in stacks] + near, HEIGHT - _FOOT, _TOP, from_zero=True)
    step = (WIDTH - _LEFT) / max(len(stacks), 1)
    width = min(step * 0.85, 60.0)
    body = "".join(
        line(_LEFT, up.at(v), WIDTH, up.at(v), "rule") + text(_LEFT - 6, up.at(v) + 4, t, "quiet", "end")
        for v, t in up.ticks(4)
    )
    body += "".join(
        _stack(s, _LEFT + step * (i + 0.5) - width / 2, width, up.at) for i, s in enumerate(stacks)
    )
    if limit is not None:
        body += line(_LEFT, up.at(limit), WIDTH, up.at(limit), "limit")
        body += text(WIDTH, up.at(limit) - 5, "limit", "bad", "end")
    body += text(0, 11, unit, "name") + text(
        WIDTH, HEIGHT - 8, "kernels in the order of execution →", "name", "end"
    )
    legend = "".join(f'<li><span class="swatch part{i}"></span>{esc(n)}</li>' for i, n in enumerate(names))
    return figure(title, note, HEIGHT, body, legend=legend)


def _stack(stack: Stack, x: float, width: float, at: Callable[[float], float]) -> str:
    parts, bottom = [], 0.0
    for i, height in enumerate(stack.parts):
        y = at(bottom + height)
        parts.append(rect(x, y, width, at(bottom) - y, f"part{i}"))
        bottom += height
    return f'<g class="pt" data-tip="{esc(stack.tip)}">{"".join(parts)}</g>'
