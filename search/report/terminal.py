"""The table and the sentences that the terminal shows at the end of a search."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluators.column import Column
from search.record.redact import redact_text
from search.record.results import BASELINE, StudyRecord, TrialRecord, number_label
from search.report.attempts import Attempts
from search.report.findings import degraded
from search.report.findings.figures import (
    Figure,
    change,
    device_of,
    figure,
    headline_metric,
    is_on_validation,
    label,
    name_label,
    sources_of,
)
from search.report.findings.health import checks
from search.report.findings.numbers import listing
from search.report.findings.summary import MANY_DEVICES, answers, knob_texts, split_knobs, states_text

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

_MOST_ROWS = 12
_MOST_KNOBS = 3
_BROAD = 110  # columns in which a figure and its interval are on one line
_WIDE = 130  # columns of a terminal with room for knobs


def closing_table(results: StudyRecord, width: int = 140, outputs: Attempts | None = None) -> "Group":
    """Returns the front with the baseline, the models to ship, and the paths of the files, for rich to print.

    Text that comes from the study is never read as rich markup.

    Args:
        results: The study.
        width: Columns of the terminal; below 130 the table has no knobs, below 110 intervals are on lines of their own.
        outputs: Makes the parts, so that an error in one leaves the others; by default an error is raised.
    """
    from rich.console import Group
    from rich.text import Text

    parts: dict[str, Callable[[], list[Text | Table]]] = {
        "the number of trials": lambda: [Text(states_text(results), style="dim")],
        "the table of the front": lambda: [_table(results, width)] if results.front else [],
        "the table of devices": lambda: [_devices(results)] if len(results.picks) > MANY_DEVICES else [],
        "the answer": lambda: _sentences(results),
        "the checks": lambda: _warnings(results),
        # paths and commands are not wrapped, so that they can be copied
        "the list of files": lambda: [
            Text(line, style="dim", no_wrap=True, overflow="ignore") for line in _files(results)
        ],
    }
    if outputs is None:
        return Group(*(part for make in parts.values() for part in make()))
    return Group(*(part for what, make in parts.items() for part in outputs.make(what, make) or ()))


def _sentences(results: StudyRecord) -> "list[Text | Table]":
    """Returns what to ship to which device."""
    from rich.text import Text

    style = "bold green" if results.best is not None else "bold red"
    told: list[Text | Table] = [
        Text(sentence, style=style) for sentence in [*answers(results), *_reasons(results)]
    ]
    verdict = degraded.verdict(results)
    return [*told, Text(verdict)] if verdict else told


def _warnings(results: StudyRecord) -> "list[Text | Table]":
    from rich.text import Text

    warned = (check for check in checks(results) if check.status == "warning")
    return [Text(f"Check: {check.text} {check.next_step}") for check in warned]


def _reasons(results: StudyRecord) -> list[str]:
    """Returns why the picks are the picks, for those whose sentence does not say it; devices of the same reason share a line."""
    devices: dict[str, list[str]] = {}
    for pick in results.picks:
        if pick.why.startswith("lowest") and pick.number != BASELINE:
            devices.setdefault(pick.why, []).append(pick.device)
    return [f"Why, on {listing(names)}: {why}." for why, names in devices.items()]


def _table(results: StudyRecord, width: int) -> "Table":
    """Returns the front with as many knobs as there is room for."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console(width=10 * width)
    knobs = _knobs(results) if width >= _WIDE else []
    table = _table_with(results, width, knobs)
    while knobs and Measurement.get(console, console.options, table).maximum > width:
        knobs = knobs[:-1]
        table = _table_with(results, width, knobs)
    return table


def _table_with(results: StudyRecord, width: int, knobs: Sequence[str]) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    columns = [o.column for o in results.objectives]
    if len(results.picks) > MANY_DEVICES:
        columns = [c for c in columns if device_of(c) is None]  # the costs have a table of their own
    padding = (0, 1) if width >= _BROAD else (0, 1, 0, 0)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=padding, title_justify="left")
    changes = ["change\nand interval"] if _shows_change(results) else []
    for head in ("trial", *changes, *(_head(results, c) for c in columns)):
        table.add_column(
            Text(head if width >= _BROAD else head.replace(" ", "\n")),
            justify="right",
            vertical="bottom",
            overflow="fold",
            no_wrap=width >= _BROAD,
            min_width=len("[−0.30,+0.50]") if head in changes else None,
        )
    for path in knobs:
        table.add_column(Text(path.rpartition(".")[2]), vertical="bottom", no_wrap=True)
    picked = {results.best, *(p.number for p in results.picks)}
    rows = _rows(results, picked, _MOST_ROWS if width >= _BROAD else _MOST_ROWS // 2)
    if results.baseline:
        style = "bold" if BASELINE in picked else "dim"
        table.add_row(
            Text("baseline"), *_figures(results, None, columns, width), *[Text("")] * len(knobs), style=style
        )
    for record in rows:
        values, style = knob_texts(record), "bold" if record.number in picked else ""
        cells = [Text(str(record.number)), *_figures(results, record, columns, width)]
        table.add_row(*cells, *(Text(values.get(k, "")) for k in knobs), style=style)
    n_more = sum(n != BASELINE for n in results.front) - len(rows)
    if n_more:
        table.caption = Text(f"{n_more} more on the front, in pareto.csv")
    return table


def _devices(results: StudyRecord) -> "Table":
    """Returns a table with a row per device: the costs of the device's pick."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cost_names = ["latency_ms", "energy_uj", "peak_sram_bytes"]
    measured = [m for pick in results.picks for m in results.trial(pick.number).measurements]
    names = [name for name in cost_names if any(m.name == name and m.device is not None for m in measured)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(Text("device"), overflow="fold")
    figures_by_name = {
        name: [
            figure(results.trial(p.number).measurements, str(Column.of(name, p.device)))
            for p in results.picks
        ]
        for name in names
    }
    # The source is in the column head if it is the same for all devices.
    sources = {name: {f.source for f in figures if f} for name, figures in figures_by_name.items()}
    for head in ("trial", *("\n".join([name_label(n), "/".join(sorted(sources[n]))]) for n in names)):
        table.add_column(Text(head), justify="right", vertical="bottom", overflow="fold")
    for row, pick in enumerate(results.picks):
        cells = [_with_source(figures_by_name[name][row], len(sources[name]) > 1) for name in names]
        table.add_row(Text(pick.device), Text(number_label(pick.number)), *map(Text, cells))
    return table


def _with_source(cost: Figure | None, with_source: bool) -> str:
    if cost is None:
        return "–"
    return f"{cost.full} {cost.source}" if with_source else cost.full


def _rows(results: StudyRecord, picked: set[int | None], most: int) -> list[TrialRecord]:
    """Returns the picks and the best other trials of the front, in the front's order, at most so many rows."""
    others = [n for n in results.front if n not in picked]
    n_others = max(0, most - len(picked & set(results.front)))
    kept = set(others[:n_others]) | picked
    return [results.trial(n) for n in results.front if n in kept and n != BASELINE]


def _knobs(results: StudyRecord) -> Sequence[str]:
    """Returns the first three knobs in which the trials of the front differ, without those of single layers."""
    return [path for path in split_knobs(results, results.front)[0] if "[" not in path][:_MOST_KNOBS]


def _head(results: StudyRecord, column: str) -> str:
    on = device_of(column) or ("validation" if is_on_validation(results, column) else "")
    lines = [on, label(column), "/".join(sources_of(results, column))]
    return "\n".join(filter(None, lines))


def _figures(
    results: StudyRecord, record: TrialRecord | None, columns: Sequence[str], width: int
) -> "list[Text]":
    from rich.text import Text

    measurements, metric = record.measurements if record else results.baseline, headline_metric(results)
    cells = []
    if metric and _shows_change(results):
        changed = change(results, record, metric) if record else None
        cells.append(Text(changed.full if changed else "–"))
    for column in columns:
        now = figure(measurements, column)
        cells.append(Text(_with_interval(now) if now else "–"))
    return cells if width >= _BROAD else [Text(_on_two_lines(cell.plain)) for cell in cells]


def _on_two_lines(text: str) -> str:
    """Returns a figure with its interval on a second line, without spaces at which it could be broken."""
    value, bracket, interval = text.partition(" [")
    if bracket:
        return f"{value}\n[{interval.replace(' ', '')}"
    return text.replace(" ±", "\n±")


def _with_interval(now: Figure) -> str:
    """Returns a figure, a measured time's with its 95 % interval as a share; that of a metric is in the column of its change."""
    if now.unit != "ms" or now.source != "measured" or now.low is None or now.high is None or not now.value:
        return now.text
    half = max(now.high - now.value, now.value - now.low) / now.value
    return f"{now.text} ±{100 * half:.2g} %"


def _shows_change(results: StudyRecord) -> bool:
    return headline_metric(results) is not None and bool(results.baseline)


def _files(results: StudyRecord) -> list[str]:
    """Returns where the picks, the report and all models are, how a pick is loaded, and the command."""
    devices: dict[Path, list[str]] = {}
    for pick in results.picks:
        devices.setdefault(results.model_path(pick.number), []).append(pick.device)
    picked = {path: names for path, names in devices.items() if path.exists()}
    lines = [f"File for {listing(names)}: {path}" for path, names in picked.items()]
    if picked:
        lines.append(f'Load: onnxruntime.InferenceSession("{next(iter(picked)).as_posix()}")')
    elif results.model_path(0).parent.exists():
        lines.append(f"Models: {results.model_path(0).parent}")
    if (report := results.folder / "report.html").exists():
        lines.append(f"Report: {report}")
    return [*lines, f"Reproduce: {redact_text(results.command)}"] if results.command else lines
