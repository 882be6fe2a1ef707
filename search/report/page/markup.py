"""The building blocks of the page. All text that comes from a study passes through `esc`."""

import html
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from search.record.results import BASELINE, model_name


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
    row_css: Sequence[str] = (),
    css: str = "",
    name: str = "table",
) -> str:
    """Returns a table that scrolls sideways on a narrow screen.

    Args:
        heads: Column heads, plain text; a second line after `\n` is set small.
        rows: Cells, HTML.
        numeric: Indices of columns that are aligned to the right.
        ids: `id` of each row, if any.
        row_css: CSS class of each row, if any; empty for none.
        css: CSS class of the table: `sortable` lets readers sort it.
        name: What the table holds, for screen readers.
    """
    classes = [' class="num"' if i in numeric else "" for i in range(len(heads))]
    head = "".join(f"<th{c} scope=col>{_head(h)}</th>" for h, c in zip(heads, classes, strict=True))
    names = [f' id="{esc(i)}"' for i in ids] or [""] * len(rows)
    names = [
        n + (f' class="{esc(c)}"' if c else "")
        for n, c in zip(names, row_css or [""] * len(rows), strict=True)
    ]
    body = "".join(
        f"<tr{i}>" + "".join(f"<td{c}>{cell}</td>" for cell, c in zip(row, classes, strict=True)) + "</tr>"
        for i, row in zip(names, rows, strict=True)
    )
    kind = f' class="{esc(css)}"' if css else ""
    return scrolling(f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>", name)


def scrolling(inner: str, name: str) -> str:
    """Returns HTML that scrolls sideways where it is too wide, with the keyboard, too."""
    return f'<div class="scroll" role="group" tabindex="0" aria-label="{esc(name)}">{inner}</div>'


def _head(text: str) -> str:
    first, _, second = text.partition("\n")
    return esc(first) + (f"<small>{esc(second)}</small>" if second else "")


def two_lines(text: str) -> str:
    """Returns HTML of a text like `+0.1 pp [-0.3, +0.5]` with the interval on a second line."""
    value, bracket, interval = text.partition(" [")
    return esc(value or "–") + (f'<br><span class="interval">[{esc(interval)}</span>' if bracket else "")


def sortable(value: float, text: str) -> str:
    """Returns HTML of a number that a table can be sorted by; a text that begins with the number needs nothing more."""
    try:
        is_plain = float(text.split(" ")[0].replace("−", "-")) == float(f"{value:.12g}")
    except ValueError:
        is_plain = False
    return esc(text) if is_plain else f'<span data-sort="{value:.6g}">{esc(text)}</span>'


def knob_head(path: str) -> str:
    """Returns a knob's name as a column head: the name, and its stage on a second line."""
    stage, _, name = path.partition(".")
    return f"{name}\n{stage}" if name else path


def details(summary: str, body: str, anchor: str = "") -> str:
    """Returns HTML that is collapsed until the reader opens it."""
    name = f' id="{esc(anchor)}"' if anchor else ""
    return f"<details{name}><summary>{esc(summary)}</summary>{body}</details>"


def trial_anchor(number: int) -> str:
    """Returns the `id` of a trial's row in the table of all trials."""
    return f"trial-{number}"


def trial_link(number: int) -> str:
    """Returns a link to a trial's row in the table of all trials; the float model has none."""
    if number == BASELINE:
        return esc(model_name(number))
    return f'<a class="trial" href="#{trial_anchor(number)}">trial {number}</a>'


def source_tag(source: str) -> str:
    """Returns a small tag with the source of a number (measured, modelled, estimated)."""
    return f'<span class="source {esc(source)}">{esc(source)}</span>' if source else ""
