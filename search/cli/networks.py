"""The table of all trained architectures below some folders, for the terminal and as one HTML page."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from evaluators.column import Column
from search.knowledge import networks, rank_correlations, results
from search.report.findings import numbers
from search.report.findings.figures import name_label
from search.report.page.chart import Axis, Point, Series, chart
from search.report.page.markup import Section, table
from search.report.report import page
from spaces.errors import InputError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 20  # networks in the terminal
_COLOURS = 6
_METHOD = (
    "Each line is one architecture: its best trial, of all bits and calibrations that it was tried with. MACs and parameters are those of "
    "the network before it is cut and quantized. Architectures with the same layers and shapes are one line, in whatever study they were."
)


def trained(folders: Sequence[Path], metric: str | None) -> tuple["pd.DataFrame", str]:
    """Returns the best trial of every architecture, and the column that they are ordered by.

    Args:
        folders: Folders with studies, at any depth.
        metric: Name of the metric; None takes the first that the studies measured.

    Raises:
        InputError: A folder is missing, no study has an architecture stage, or there is no such metric.
    """
    found = results(*folders)
    searched = found[found["structure"].notna()].dropna(axis=1, how="all")
    if searched.empty:
        raise InputError(
            f"{', '.join(map(str, folders))}: no study has a stage `architecture`; without one there is nothing to list"
        )
    columns = [column for text in map(str, searched) if (column := Column.find(text)) is not None]
    names = [column.name for column in columns if not column.is_cost]
    chosen = names[0] if metric is None else metric
    if chosen not in names:
        raise InputError(unknown_name("metric", chosen, names, "--metric"))
    wanted = str(Column.of(chosen))
    return networks(searched, wanted).dropna(axis=1, how="all"), wanted


def networks_table(rows: "pd.DataFrame", column: str) -> Table:
    """Returns the best architectures for the terminal."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    knobs = _knobs(rows)
    for at, head in enumerate(_heads(column, knobs)):
        shown.add_column(Text(head), justify="right" if 0 < at < 6 else "left", overflow="fold")
    for _, row in rows.head(_SHOWN).iterrows():
        shown.add_row(*map(Text, _cells(row, column, knobs)))
    return shown


def summary(rows: "pd.DataFrame", column: str) -> list[str]:
    """Returns sentences on how many architectures there are and how their costs go with the metric."""
    n_trials, n_studies = int(rows["n_trials"].sum()), rows["folder"].nunique()
    studies = "1 study" if n_studies == 1 else f"{n_studies} studies"
    told = [
        f"{numbers.counted(len(rows), 'architecture')} in {numbers.counted(n_trials, 'trial')}; the best ones are in {studies}."
    ]
    for task, group in rows.groupby("task"):
        found = rank_correlations(group, column)
        if found:
            texts = (f"{_label(name)} {value:+.2f}" for name, value in found.items())
            told.append(f"Rank correlation with {_label(column)} on {task}: {', '.join(texts)}.")
    return told


def networks_page(rows: "pd.DataFrame", column: str, title: str) -> str:
    """Returns the page.

    Args:
        rows: The architectures, best first.
        column: The column that they are ordered by.
        title: Heading, plain text.
    """
    knobs = _knobs(rows)
    heads = _heads(column, knobs)
    cells = [[escape(cell) for cell in _cells(row, column, knobs)] for _, row in rows.iterrows()]
    ids = [f"network-{i}" for i in range(len(cells))]
    listed = table(heads, cells, numeric=range(1, 6), ids=ids, css="sortable", name="Architectures")
    sections = [
        Section("costs", "Metric over MACs", "", _scatter(rows, column)),
        *_curves(rows, column),
        Section("networks", "Architectures", _METHOD, listed),
    ]
    return page(title, "Paredown architectures", summary(rows, column), sections)


def _knobs(rows: "pd.DataFrame") -> list[str]:
    """Returns the columns of the architecture's knobs that differ."""
    own = [c for c in map(str, rows) if c.startswith("knob.architecture.")]
    return [c for c in own if rows[c].astype(str).nunique() > 1]


def _heads(column: str, knobs: Sequence[str]) -> list[str]:
    return ["study", "trial", _label(column), "MACs", "parameters", "trials", *map(_short, knobs)]


def _cells(row: Any, column: str, knobs: Sequence[str]) -> list[str]:
    counts = [f"{row[name]:,.0f}" for name in ("macs", "parameters", "n_trials")]
    values = (str(row[knob]) for knob in knobs)
    return [str(row["study"]), str(row["number"]), numbers.plain(float(row[column])), *counts, *values]


def _short(column: str) -> str:
    return column.rpartition(".")[2]


def _label(column: str) -> str:
    return name_label(_short(column))


def _scatter(rows: "pd.DataFrame", column: str) -> str:
    series = []
    anchors = {index: f"network-{i}" for i, index in enumerate(rows.index)}
    for i, (task, group) in enumerate(rows.groupby("task")):
        points = [
            Point(float(row["macs"]), float(row[column]), _told(row, column), anchors[index])
            for index, row in group.iterrows()
        ]
        series.append(Series(str(task), f"c{i % _COLOURS}", points))
    return chart(f"{_label(column)} over MACs", series, Axis("MACs", is_count=True), Axis(_label(column)))


def _told(row: Any, column: str) -> str:
    return f"{row['study']}, trial {row['number']}\n{_label(column)} {numbers.plain(float(row[column]))}\n{row['macs']:,.0f} MACs"


def _curves(rows: "pd.DataFrame", column: str) -> list[Section]:
    """Returns a section with the trainings of the best architectures; none if none was recorded."""
    kept = rows[rows["curve"].notna()].head(_SHOWN) if "curve" in rows else rows.head(0)
    if kept.empty:
        return []
    series = [
        Series(
            f"{row['study']}, trial {row['number']}" if i < _COLOURS else "",
            f"c{i}" if i < _COLOURS else "other",
            [
                Point(
                    epoch,
                    float(v),
                    f"{row['study']}, trial {row['number']}, epoch {epoch}\n{numbers.plain(float(v))}",
                )
                for epoch, v in enumerate(row["curve"], 1)
            ],
            "dot",
            "straight",
        )
        for i, (_, row) in enumerate(kept.iterrows())
    ]
    lead = "The metric after each epoch on the first validation examples, before export and quantization."
    drawn = chart("Training curves", series[::-1], Axis("epoch", is_count=True), Axis(_label(column)))
    return [Section("curves", "Trainings", lead, drawn)]
