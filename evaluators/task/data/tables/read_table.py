"""Reads CSV, TSV and Parquet files as columns; wrong values are named by file, column and row."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.archives import read_bytes, reading
from spaces.errors import InputError, unknown_name

SUFFIXES = (".csv", ".tsv", ".parquet")
_LONGEST = 2**31 - 1  # characters of a value
_FEW = 20  # columns that a message lists


@dataclass(frozen=True)
class Rows(Sequence[str]):
    """Where each row of a file is, for messages; the first row after the header is row 1.

    Attributes:
        path: The file.
        n: Number of rows.
    """

    path: Path
    n: int

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, row: Any) -> Any:
        if not row < self.n:
            raise IndexError(row)  # ends an iteration
        return f"{self.path}, row {row + 1}"


@dataclass(frozen=True)
class Table:
    """The columns of a file, equally long.

    Attributes:
        path: The file.
        columns: Values by column: texts `(n,)` as objects, numbers `(n,)`, or objects that are lists; None where one is missing.
        n: Number of rows.
    """

    path: Path
    columns: Mapping[str, NDArray[Any]]
    n: int

    @property
    def rows(self) -> Rows:
        """Where each row is, for messages."""
        return Rows(self.path, self.n)

    def column(self, name: str) -> NDArray[Any]:
        """Returns the values of a column as they are stored. Raises InputError if there is none."""
        if name not in self.columns:
            known = [*self.columns]
            shown = known[:_FEW] if len(known) > _FEW else known
            raise InputError(f"{self.path}: {unknown_name('column', name, shown)}")
        return self.columns[name]

    def texts(self, name: str, may_be_empty: bool = False) -> NDArray[np.object_]:
        """Returns the values of a column as texts, `(n,)`. Raises InputError if one is missing."""
        values = self.column(name)
        texts = np.empty(self.n, object)
        for row, value in enumerate(values.tolist()):
            if _is_missing(value) or (value == "" and not may_be_empty):
                raise InputError(f"{self.rows[row]}, column {name}: the value is missing")
            texts[row] = value if isinstance(value, str) else str(value)
        return texts

    def labels(self, name: str) -> NDArray[Any]:
        """Returns the values of a column as numbers, if they all are, else as texts. Raises InputError if one is missing."""
        if self.column(name).dtype.kind in "iufb":
            return self.numbers(name)
        texts = self.texts(name)
        try:
            return _narrow(np.array([float(text) for text in texts]))
        except ValueError:
            return texts

    def numbers(self, name: str) -> NDArray[Any]:
        """Returns the values of a column as numbers, `(n,)`, or `(n, k)` where each is a list of k.

        Whole numbers are int64, others float64.

        Raises:
            InputError: A value is missing, no finite number, or a list of another length than the first one.
        """
        values = self.column(name)
        if values.dtype.kind in "iub":
            return values.astype(np.int64)
        if values.dtype.kind == "f":
            return _narrow(self._finite(values.astype(np.float64), name))
        if self.n and isinstance(values[0], list | np.ndarray):
            return self._lists(values, name)
        found = np.empty(self.n, np.float64)
        for row, value in enumerate(values.tolist()):
            found[row] = self._number(value, row, name)
        return _narrow(self._finite(found, name))

    def _lists(self, values: NDArray[Any], name: str) -> NDArray[Any]:
        length = len(values[0])
        for row, value in enumerate(values):
            if not isinstance(value, list | np.ndarray):
                raise InputError(f"{self.rows[row]}, column {name}: the value is missing")
            if len(value) != length:
                raise InputError(
                    f"{self.rows[row]}, column {name}: the list has {len(value)} values, but that of row 1 has {length}"
                )
        found = np.array(
            [[self._number(v, row, name) for v in value] for row, value in enumerate(values)], np.float64
        ).reshape(self.n, length)
        return _narrow(self._finite(found, name))

    def _number(self, value: Any, row: int, name: str) -> float:
        if _is_missing(value) or value == "":
            raise InputError(f"{self.rows[row]}, column {name}: the value is missing")
        try:
            return float(value)
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.rows[row]}, column {name}: {value!r} is not a number") from error

    def _finite(self, values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            what = "missing" if np.isnan(values[row]).any() else "not finite"
            raise InputError(f"{self.rows[row]}, column {name}: the value is {what}")
        return values


def read_table(path: Path) -> Table:
    """Reads a file; the name's ending tells its format: `.csv` (commas), `.tsv` (tabs), both also with `.gz`, or `.parquet`.

    CSV and TSV files are in UTF-8, and their first line names the columns.

    Raises:
        InputError: The file is missing, damaged, of another format, empty, or a row has another number of values than the header.
    """
    name = path.name.removesuffix(".gz")
    if path.suffix == ".parquet":
        return _parquet(path)
    if name.endswith((".csv", ".tsv")):
        return _delimited(path, "," if name.endswith(".csv") else "\t")
    raise InputError(f"{path}: the name of a table must end in {', '.join(SUFFIXES)} (or .csv.gz, .tsv.gz)")


def _parquet(path: Path) -> Table:
    from pyarrow import ArrowException, parquet

    try:
        with reading(path, "a Parquet file"), path.open("rb") as file:
            stored = parquet.read_table(file)
    except ArrowException as error:
        raise InputError(f"{path} is damaged, or not a Parquet file: {str(error)[:200]}") from error
    if not stored.num_rows:
        raise InputError(f"{path} has no rows")
    columns = {}
    for name in stored.column_names:
        column = stored.column(name)
        plain = column.null_count == 0 and str(column.type).startswith(
            ("int", "uint", "float", "double", "bool")
        )
        columns[name] = column.to_numpy() if plain else _objects(column.to_pylist())
    return Table(path, columns, stored.num_rows)


def _delimited(path: Path, delimiter: str) -> Table:
    what = f"a {'CSV' if delimiter == ',' else 'TSV'} file in UTF-8"
    with reading(path, what):
        text = read_bytes(path).decode("utf-8-sig")
    limit = csv.field_size_limit(_LONGEST)
    try:
        return _rows(path, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise InputError(f"{path} is not {what}: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _rows(path: Path, reader: Any) -> Table:
    header = next(reader, None)
    if not header:
        raise InputError(f"{path} is empty; its first line must name the columns")
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: two columns are named {twice!r}")
    rows: list[list[str]] = []
    for row in reader:
        if not row:  # an empty line
            continue
        if len(row) != len(header):
            raise InputError(
                f"{path}, row {len(rows) + 1} (line {reader.line_num}): {len(row)} values, but the header names "
                f"{len(header)} columns"
            )
        rows.append(row)
    if not rows:
        raise InputError(f"{path} has no rows")
    columns = {name: _objects([row[i] for row in rows]) for i, name in enumerate(header)}
    return Table(path, columns, len(rows))


def _objects(values: Sequence[Any]) -> NDArray[np.object_]:
    made = np.empty(len(values), object)
    made[:] = values
    return made


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def _narrow(values: NDArray[np.float64]) -> NDArray[Any]:
    """Returns whole numbers as int64."""
    whole = bool((values == np.floor(values)).all() and (np.abs(values) < 2**53).all())
    return values.astype(np.int64) if whole else values
