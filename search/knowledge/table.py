"""Reads a table of measurements, one row per candidate: `task`, `task.*`, `knob.*`, `metric.*` and more."""

import csv
import gzip
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evaluators.column import Column
from spaces.candidate import Value
from spaces.errors import ConfigError, InputError, unknown_name

_BASELINE = "baseline."  # prefix of the columns with the uncompressed model's values


@dataclass(frozen=True)
class TableRow:
    """One measured candidate.

    Attributes:
        index: Position among the rows of the table, from 0.
        line: Line number in the file, from 1 (the header).
        task: Name of the task.
        knobs: Knob to value; None where the cell is empty: the knob is inactive.
        metrics: Metric to finite value, without those whose cell is empty.
        costs: Column (`cost.host.latency_ms`) to finite value, likewise.
        baseline: Column (`metric.top1`) to the uncompressed model's finite value, likewise.
    """

    index: int
    line: int
    task: str
    knobs: Mapping[str, Value]
    metrics: Mapping[str, float]
    costs: Mapping[str, float] = field(default_factory=dict)
    baseline: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A validated table.

    Attributes:
        path: The file.
        knobs: Names of the knobs, in column order, without the prefix `knob.`.
        metrics: Names of the metrics, in column order, without the prefix `metric.`.
        rows: All rows, in file order.
        descriptors: Task to its descriptors. A column with text in some task becomes indicators:
            `{"name=value": 1.0}`.
    """

    path: Path
    knobs: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[TableRow, ...]
    descriptors: Mapping[str, Mapping[str, float]]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in order of appearance."""
        return tuple(dict.fromkeys(row.task for row in self.rows))

    def of_task(self, task: str) -> tuple[TableRow, ...]:
        """Returns the task's rows.

        Raises:
            ConfigError: The table has no such task.
        """
        rows = tuple(row for row in self.rows if row.task == task)
        if not rows:
            raise ConfigError(unknown_name("task", task, self.tasks, f"column `task` of {self.path}"))
        return rows


def read_table(path: str | Path) -> Table:
    """Reads a CSV file (also compressed: `.csv.gz`).

    Args:
        path: The file. Columns other than `task`, `task.*`, `knob.*`, `metric.*`, `cost.<device>.*` and
            `baseline.*` (`baseline.metric.top1`: the uncompressed model's) are ignored. A knob column whose
            cells are all integers, numbers or true/false has values of that type, else text. Rows may have
            empty knob cells (the knob is inactive there) and empty number cells (not measured). Without a column `task`
            all rows are of one task, which has the file's name.

    Raises:
        InputError: The file is missing or not a CSV table, lacks columns or rows, repeats a candidate, or a
            cell is wrong; the message names file, column and line.
    """
    path = Path(path)
    header, lines, cells = _cells(path)
    at = {name: i for i, name in enumerate(header)}
    knobs = tuple(name[5:] for name in header if name.startswith("knob.") and name[5:])
    columns = {text: column for text in header if (column := Column.find(text)) is not None}
    metrics = tuple(column.name for column in columns.values() if not column.is_cost)
    for wanted, found in (("knob.*", knobs), (str(Column.of("*")), metrics)):
        if not found:
            hint = "" if len(header) > 1 else "; commas must separate its cells"
            raise InputError(f"{path} has no column `{wanted}`; its columns are: {', '.join(header)}{hint}")
    if not cells:
        raise InputError(f"{path} has a header but no rows")
    tasks = [row[at["task"]] if "task" in at else path.name.partition(".")[0] for row in cells]
    if "" in tasks:
        raise InputError(f"{path}, line {lines[tasks.index('')]}: column `task` is empty")
    knob_columns = [_parsed([row[at[f"knob.{name}"]] for row in cells]) for name in knobs]
    groups_of = (
        {text: column.name for text, column in columns.items() if not column.is_cost},
        {text: text for text, column in columns.items() if column.is_cost},
        {
            text: text.removeprefix(_BASELINE)
            for text in header
            if text.startswith(_BASELINE) and text != _BASELINE
        },
    )
    rows = []
    for index, row in enumerate(cells):
        named = dict(zip(header, row, strict=True))
        groups = [_numbers(path, lines[index], group, named) for group in groups_of]
        rows.append(
            TableRow(
                index,
                lines[index],
                tasks[index],
                {name: column[index] for name, column in zip(knobs, knob_columns, strict=True)},
                *groups,
            )
        )
    _check_once(path, rows)
    texts = {name: [row[at[name]] for row in cells] for name in header if name.startswith("task.")}
    return Table(path, knobs, metrics, tuple(rows), _descriptors(path, tasks, lines, texts))


def _cells(path: Path) -> tuple[list[str], list[int], list[list[str]]]:
    """Returns the header, and the line numbers and the cells, as text, of the rows that are not blank."""
    header: list[str] | None = None
    lines: list[int] = []
    rows: list[list[str]] = []
    for line, cells in _records(path):
        if not any(cells):
            continue  # a blank line
        if header is None:
            header = _header(path, cells)
        elif len(cells) != len(header):
            raise InputError(f"{path}, line {line} has {len(cells)} cells, but the header has {len(header)}")
        else:
            lines.append(line)
            rows.append(cells)
    if header is None:
        raise InputError(f"{path} is empty; the first line must name the columns")
    return header, lines, rows


def _records(path: Path) -> list[tuple[int, list[str]]]:
    """Returns every record with the number of its first line.

    pandas would rename columns and drop line numbers.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            records, previous = [], 0
            for cells in reader:
                records.append((previous + 1, [cell.strip() for cell in cells]))
                previous = reader.line_num
            return records
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; give the path of a CSV file") from error
    except (
        OSError,
        EOFError,
        ValueError,
        csv.Error,
        zlib.error,
    ) as error:  # a folder, no UTF-8, no gzip, ...
        raise InputError(f"{path} cannot be read as a CSV table: {error}") from error


def _header(path: Path, names: list[str]) -> list[str]:
    repeated = next((name for i, name in enumerate(names) if name and name in names[:i]), None)
    if repeated is not None:
        raise InputError(f"{path} has the column `{repeated}` twice")
    return names


def _parsed(texts: Sequence[str]) -> list[Value]:
    """Returns the values: all integers, all numbers, all true/false, or all text; an empty cell is None."""
    filled = [text for text in texts if text]
    for convert in (_integer, _number, _boolean):
        values = {text: convert(text) for text in set(filled)}
        if None not in values.values():
            return [values[text] if text else None for text in texts]
    return [text or None for text in texts]


def _integer(text: str) -> int | None:
    try:
        return int(text) if "_" not in text else None  # int("1_000") is 1000
    except ValueError:
        return None


def _number(text: str) -> float | None:
    try:
        number = float(text) if "_" not in text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _boolean(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text.lower())


def _numbers(path: Path, line: int, names: Mapping[str, str], cells: Mapping[str, str]) -> dict[str, float]:
    """Returns a row's numbers by name; `names` maps columns to names. Empty cells are left out."""
    values = {name: _metric(path, line, column, cells[column]) for column, name in names.items()}
    return {name: value for name, value in values.items() if value is not None}


def _metric(path: Path, line: int, column: str, text: str) -> float | None:
    if not text:
        return None
    number = _number(text)
    if number is None:
        raise InputError(f"{path}, line {line}: column `{column}` must hold a finite number, not {text!r}")
    return number


def _check_once(path: Path, rows: Sequence[TableRow]) -> None:
    first_rows: dict[tuple[object, ...], TableRow] = {}
    for row in rows:
        first = first_rows.setdefault((row.task, *row.knobs.values()), row)
        if first is not row:
            raise InputError(
                f"{path}, line {row.line} repeats line {first.line}: task {row.task!r} with the same value in every "
                "column `knob.*`; keep one of them, or name the column in which they differ `task` (another network or data) or "
                "`knob.NAME`"
            )


def _descriptors(
    path: Path, tasks: Sequence[str], lines: Sequence[int], texts: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, float]]:
    descriptors: dict[str, dict[str, float]] = {task: {} for task in tasks}
    for column, cells in texts.items():
        by_task: dict[str, str] = {}
        for task, line, text in zip(tasks, lines, cells, strict=True):
            if by_task.setdefault(task, text) != text:
                raise InputError(
                    f"{path}, line {line}: column `{column}` is {text!r}, but {by_task[task]!r} in an earlier line of "
                    f"the task {task!r}; a descriptor has one value per task"
                )
        numbers = {text: _number(text) for text in by_task.values() if text}
        for task, text in by_task.items():
            number = numbers.get(text)
            if text and None not in numbers.values() and number is not None:
                descriptors[task][column[5:]] = number
            elif text:
                descriptors[task][f"{column[5:]}={text}"] = 1.0
    return descriptors
