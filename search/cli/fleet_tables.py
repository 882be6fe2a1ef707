"""The table of a sweep's studies, for the terminal and as one HTML page."""

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from evaluators.column import Column
from search.cli.agreement import agreement
from search.cli.fleet import Fleet, Line
from search.cli.fleet_front import ON_FRONT, ends_of, front_lines, front_section, line_anchor
from search.cli.fleet_units import bounded, label_of, text_of, unit_of_name
from search.report.findings import numbers
from search.report.page.markup import Section, table, two_lines
from search.report.report import page

_METHOD = (
    "Each line is what one setting ships to one device: the device's own pick, else the study's best model. Below a cost is by "
    "what factor it changed against the uncompressed model, below a metric the uncompressed model's value. Several seeds "
    "give a mean with its 95 % interval, a single study the interval of its figure. Whether a figure is measured, modelled or estimated is in each study's report."
)


def terminal_table(found: Fleet) -> Table:
    """Returns the table for the terminal."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_lines=False)
    for head in _left(found):
        shown.add_column(Text(head), overflow="fold")
    for name in found.names:
        shown.add_column(Text(label_of(name)), justify="right", overflow="fold")
    for line in found.lines:
        cells = ["\n".join(filter(None, cell(line, name))).replace(" [", "\n[") for name in found.names]
        shown.add_row(*map(Text, (*_left_cells(found, line), *cells)))
    return shown


def html_page(found: Fleet, title: str, folder: Path) -> str:
    """Returns the page.

    Args:
        found: The table.
        title: Heading, plain text.
        folder: Where the page will be, for links to the studies' reports.
    """
    n_left, on_front = len(_left(found)), front_lines(found)
    left = [_two_lines(head) for head in _left(found)]
    heads = [*left, *(label_of(name) for name in found.names), "trials", "time", "study"]
    rows = [
        [
            *(f"<code>{escape(text)}</code>" for text in _left_cells(found, line)),
            *_figures(found, line),
            *(escape(text) for text in _about(line)),
            _links(line, folder),
        ]
        for line in found.lines
    ]
    body = table(
        heads,
        rows,
        numeric=range(n_left, n_left + len(found.names) + 2),
        ids=[line_anchor(i) for i in range(len(rows))],
        row_css=["pick" if i in on_front else "" for i in range(len(rows))],
        css="sortable",
        name="Studies",
    )
    shaded = f" Shaded: {ON_FRONT}." if on_front else ""
    studies = Section("studies", "What each setting ships", _METHOD + shaded, body)
    return page(title, "Paredown sweep", _answer(found), [*front_section(found), studies])


def _two_lines(key: str) -> str:
    """Returns a config key as a column head: `weight_bits`, and `space.quantize` on a second line."""
    before, _, last = key.rpartition(".")
    return f"{last}\n{before}" if before else key


def _figures(found: Fleet, line: Line) -> list[str]:
    """Returns the cells of a line's values, HTML; that nothing is shipped is said once."""
    if any(s.values for s in line.shipped):
        return [_html(line, name) for name in found.names]
    return [_html(line, found.names[0]), *["–"] * (len(found.names) - 1)] if found.names else []


def _left(found: Fleet) -> list[str]:
    """Returns the heads of the columns that say what a line is."""
    devices = ["device"] if any(line.device for line in found.lines) else []
    return [*found.settings, *devices, *(["runs"] if _several(found) else [])]


def _left_cells(found: Fleet, line: Line) -> list[str]:
    device = [line.device or "–"] if "device" in _left(found) else []
    return [*line.settings, *device, *([str(len(line.shipped))] if _several(found) else [])]


def _several(found: Fleet) -> bool:
    return any(len(line.shipped) > 1 for line in found.lines)


def cell(line: Line, name: str) -> tuple[str, str]:
    """Returns a value as text, with its interval over seeds, and how it compares with the uncompressed model."""
    values, before = line.values(name), line.baselines(name)
    missing = len(line.shipped) - len(values)
    if not values:
        return "none met the constraints" if not any(s.values for s in line.shipped) else "–", ""
    mean = float(np.mean(values))
    ends, unit = ends_of(line, name), line.unit(name)
    text = text_of(mean, unit) if ends is None else bounded(mean, *ends, unit)
    if missing:
        text += f" ({missing} of {len(line.shipped)} missed)"
    if not before:
        return text, ""
    first = float(np.mean(before))
    return text, numbers.ratio(str(Column.of(name)), first, mean) or "" if unit_of_name(
        name
    ) else f"from {text_of(first, unit)}"


def _html(line: Line, name: str) -> str:
    value, compared = cell(line, name)
    below = f'<br><span class="interval">{escape(compared)}</span>' if compared else ""
    means = line.values(name)
    exact = f' data-sort="{float(np.mean(means))!r}"' if means else ""
    return f"<span{exact}>{two_lines(value)}</span>{below}"


def _about(line: Line) -> Sequence[str]:
    trials = [s.study["n_trials"] for s in line.shipped if "n_trials" in s.study]
    seconds = [s.study["wall_s"] for s in line.shipped if "wall_s" in s.study]
    return f"{sum(trials):.0f}", numbers.duration(sum(seconds)) if seconds else "–"


def _links(line: Line, folder: Path) -> str:
    """Returns links to the reports of a line's studies, relative to the page."""
    parts = []
    for n, s in enumerate(line.shipped, 1):
        report = s.folder / "report.html"
        label = f"report {n}" if len(line.shipped) > 1 else "report"
        if report.is_file():
            target = Path(os.path.relpath(report, folder.resolve())).as_posix()
            parts.append(f'<a class="report" href="{escape(quote(target))}">{label}</a>')
    return " ".join(parts) or "–"


def _answer(found: Fleet) -> list[str]:
    studies = {s.folder for line in found.lines for s in line.shipped}
    failed = [line for line in found.lines if not any(s.values for s in line.shipped)]
    devices = {line.device for line in found.lines if line.device}
    differ = [
        *found.settings,
        *(["device"] if len(devices) > 1 else []),
        *(["seed"] if _several(found) else []),
    ]
    text = "1 study" if len(studies) == 1 else f"{len(studies)} studies"
    text += f", by {numbers.listing(differ)}." if differ else "."
    return [
        text,
        *(
            [f"{numbers.counted(len(failed), 'line')} without a candidate that met the constraints."]
            if failed
            else []
        ),
        *agreement(found),
    ]
