"""The building blocks of the page. All text that comes from a study passes through `esc`."""

import html
import itertools
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Section:
    """One section of the page.

    Attributes:
        anchor: The `id` in the page.
        title: Heading, plain text.
        lead: Introduction, plain text; may be empty.
        body: HTML.
    """

    anchor: str
    title: str
    lead: str
    body: str

    def html(self) -> str:
        """Returns the section as HTML."""
        lead = f'<p class="lead">{esc(self.lead)}</p>' if self.lead else ""
        return f'<section id="{esc(self.anchor)}"><h2>{esc(self.title)}</h2>{lead}{self.body}</section>'


def esc(text: object) -> str:
    """Escapes text for HTML, quotes included."""
    return html.escape(str(text), quote=True)


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numeric: Collection[int] = (),
    ids: Sequence[str] = (),
) -> str:
    """Returns a table that scrolls sideways on a narrow screen.

    Args:
        heads: Column heads, plain text; a second line after `\n` is set small.
        rows: Cells, HTML.
        numeric: Indices of columns that are aligned to the right.
        ids: `id` of each row, if any.
    """
    classes = [' class="num"' if i in numeric else "" for i in range(len(heads))]
    head = "".join(f"<th{c} scope=col>{_head(h)}</th>" for h, c in zip(heads, classes, strict=True))
    names = [f' id="{esc(i)}"' for i in ids] or [""] * len(rows)
    body = "".join(
        f"<tr{name}>" + "".join(f"<td{c}>{cell}</td>" for cell, c in zip(row, classes, strict=True)) + "</tr>"
        for name, row in zip(names, rows, strict=True)
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _head(text: str) -> str:
    first, _, second = text.partition("\n")
    return esc(first) + (f"<small>{esc(second)}</small>" if second else "")


def two_lines(text: str) -> str:
    """Returns HTML of a text like `+0.1 pp [-0.3, +0.5]` with the interval on a second line."""
    value, bracket, interval = text.partition(" [")
    return esc(value or "–") + (f'<br><span class="interval">[{esc(interval)}</span>' if bracket else "")


def knob_head(path: str) -> str:
    """Returns a knob's name as a column head: the name, and its stage on a second line."""
    stage, _, name = path.partition(".")
    return f"{name}\n{stage}" if name else path


def details(summary: str, body: str, anchor: str = "") -> str:
    """Returns HTML that is collapsed until the reader opens it."""
    name = f' id="{esc(anchor)}"' if anchor else ""
    return f"<details{name}><summary>{esc(summary)}</summary>{body}</details>"


def trial_link(number: int) -> str:
    """Returns a link to a trial's row in the table of all trials."""
    return f'<a class="trial" href="#trial-{number}">trial {number}</a>'


def source_tag(source: str) -> str:
    """Returns a small tag with the source of a number (measured, modelled, estimated)."""
    return f'<span class="source {esc(source)}">{esc(source)}</span>' if source else ""


def script_json(value: Any) -> str:
    """Returns JSON for a script element: no markup can end the element, and non-finite numbers are null."""
    text = json.dumps(_finite(value), separators=(",", ":"), ensure_ascii=False)
    return (
        text.replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
        .replace("\u2028", "\\u2028")
    )


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


class Charts:
    """Makes chart elements with distinct ids, and collects the Plotly charts that the page's script draws."""

    def __init__(self) -> None:
        self._ids: Iterator[int] = itertools.count(1)
        self.specs: dict[str, dict[str, Any]] = {}

    def add(
        self, traces: Sequence[Mapping[str, Any]], layout: Mapping[str, Any], title: str, height: int = 380
    ) -> str:
        """Registers a Plotly chart and returns its HTML.

        Args:
            traces: Plotly traces; a colour may be `var(--name)`, a variable of the page's style.
            layout: Plotly layout.
            title: What the chart shows: its caption, and its label for screen readers.
            height: Pixels.
        """
        name = f"chart-{next(self._ids)}"
        self.specs[name] = {
            "traces": list(traces),
            "layout": {**layout, "height": height},
            "zoomable": all(t.get("type") == "scatter" for t in traces),
        }
        return (
            f'<figure><figcaption>{esc(title)}</figcaption><div id="{name}" class="chart" role="img" '
            f'aria-label="{esc(title)}" style="min-height:{height}px"></div></figure>'
        )
