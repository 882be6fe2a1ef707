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
from search.cli.fleet import Fleet, Line
from search.cli.statistics import interval
from search.report.findings import numbers
from search.report.findings.figures import name_label
from search.report.page.markup import Charts, Section, table
from search.report.report import page

_UNITS = {"_bytes": "bytes", "_ms": "ms", "_uj": "uJ"}
_METHOD = (
    "Each line is what one setting ships to one device: the device's own pick, else the study's best model. Below a cost is by "
    "what factor it changed against the uncompressed model, below a metric the uncompressed model's value. Several seeds "
    "give a mean with its 95 % interval. Whether a figure is measured, modelled or estimated is in each study's report."
)


def terminal_table(found: Fleet) -> Table:
    """Returns the table for the terminal."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_lines=False)
    for head in _left(found):
        shown.add_column(Text(head), overflow="fold")
    for name in found.names:
        shown.add_column(Text(_label(name)), justify="right", overflow="fold")
    for line in found.lines:
        cells = ["\n".join(filter(None, cell(line, name))) for name in found.names]
        shown.add_row(*map(Text, (*_left_cells(found, line), *cells)))
    return shown


def html_page(found: Fleet, title: str, folder: Path) -> str:
    """Returns the page.

    Args:
        found: The table.
        title: Heading, plain text.
        folder: Where the page will be, for links to the studies' reports.
    """
    charts = Charts()
    n_left = len(_left(found))
    heads = [*_left(found), *(_label(name) for name in found.names), "trials", "time", "study"]
    rows = [
        [
            *(f"<code>{escape(text)}</code>" for text in _left_cells(found, line)),
            *(_html(*cell(line, name)) for name in found.names),
            *(escape(text) for text in _about(line)),
            _links(line, folder),
        ]
        for line in found.lines
    ]
    body = table(heads, rows, numeric=range(n_left, n_left + len(found.names) + 2))
    sections = [Section("studies", "What each setting ships", _METHOD, body), *_chart(found, charts)]
    return page(title, "Paredown sweep", _answer(found), sections, charts)


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
    text = _text(name, mean)
    if len(values) > 1:
        low, high = interval(values)
        text += f" [{_text(name, low)}, {_text(name, high)}]"
    if missing:
        text += f" ({missing} of {len(line.shipped)} missed)"
    if not before:
        return text, ""
    first = float(np.mean(before))
    return text, numbers.ratio(str(Column.of(name)), first, mean) or "" if _unit(
        name
    ) else f"from {_text(name, first)}"


def _unit(name: str) -> str:
    return next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")


def _text(name: str, value: float) -> str:
    return numbers.quantity(value, _unit(name)) if _unit(name) else numbers.plain(value)


def _label(name: str) -> str:
    return f"test {name_label(name[5:])}" if name.startswith("test_") else name_label(name)


def _html(value: str, compared: str) -> str:
    return escape(value) + (f'<br><span class="interval">{escape(compared)}</span>' if compared else "")


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
            parts.append(f'<a href="{escape(quote(target))}">{label}</a>')
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
    ]


def _chart(found: Fleet, charts: Charts) -> list[Section]:
    """Returns a section with the metric over the size or the latency; none where a sweep has neither."""
    across = next((n for n in ("latency_ms", "file_bytes") if n in found.names), None)
    up = next((n for n in found.names if not _unit(n)), None)
    if across is None or up is None:
        return []
    traces = []
    for device in dict.fromkeys(line.device for line in found.lines):
        lines = [n for n in found.lines if n.device == device and n.values(across) and n.values(up)]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": escape(device or "all"),
                "x": [float(np.mean(n.values(across))) for n in lines],
                "y": [float(np.mean(n.values(up))) for n in lines],
                "text": [escape(", ".join(n.settings)) for n in lines],
            }
        )
    layout = {
        "xaxis": {"title": {"text": escape(f"{_label(across)} ({_unit(across)})")}, "type": "log"},
        "yaxis": {"title": {"text": escape(_label(up))}},
    }
    return [
        Section("chart", "Compared", "", charts.add(traces, layout, f"{_label(up)} over {_label(across)}"))
    ]
