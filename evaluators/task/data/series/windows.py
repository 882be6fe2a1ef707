"""Cuts series into windows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from evaluators.task.data.archives import read_npz
from evaluators.task.data.tables.read_table import Table, read_table
from spaces.errors import InputError, unknown_name
from spaces.stages.array_split import Indices

Values = NDArray[Any]


@dataclass(frozen=True)
class Series:
    """One series.

    Attributes:
        name: Its name.
        columns: Values by column, `(n_steps,)` each.
        rows: Row of each step in the file, for messages.
    """

    name: str
    columns: Mapping[str, Values]
    rows: Indices

    def values(self, names: Sequence[str]) -> Values:
        """Returns columns side by side, `(n_steps, n_columns)`. Raises InputError if there is none of a name."""
        for name in names:
            if name not in self.columns:
                raise InputError(unknown_name("column", name, self.columns))
        return np.stack([self.columns[name] for name in names], axis=1)


def starts(n_steps: int, length: int, stride: int) -> Indices:
    """Returns the first step of each window of a length that lies in the series."""
    return np.arange(0, n_steps - length + 1, stride)


def cut(values: Values, first: Indices, length: int) -> Values:
    """Returns windows `(n, length, columns)` of `(n_steps, columns)`."""
    return np.moveaxis(sliding_window_view(values, length, axis=0)[first], -1, 1)


def read_series(
    path: Path, numbers: Sequence[str] | None, label: str | None, series: str | None
) -> list[Series]:
    """Reads the series of a file.

    An `.npz` file has an array `x`, `(n_steps,)`, `(n_steps, columns)` or `(n_series, n_steps, columns)`, whose columns are named
    0, 1, ...; of a table each row is a step, in the order of time.

    Args:
        path: The file.
        numbers: Columns that are read as numbers; None takes all but `label` and `series`.
        label: Column of a class for each step, read as it is; in an `.npz` file an array, of the shape of `x` without columns.
        series: Column that tells the series of each row; None takes the file as one series, or the first axis of three.

    Raises:
        InputError: The file is missing, damaged or of another format, or a value is missing or no number.
    """
    if path.suffix == ".npz":
        return _of_arrays(path, label)
    table = read_table(path)
    names = [name for name in table.columns if name not in (label, series)] if numbers is None else numbers
    columns: dict[str, Values] = {}
    for name in names:
        columns[name] = table.numbers(name)
        if columns[name].ndim != 1:
            raise InputError(f"{path}, column {name}: one number for each step is needed, not a list")
    if label is not None:
        columns[label] = table.labels(label)
    return [
        Series(name, {key: values[rows] for key, values in columns.items()}, rows)
        for name, rows in _rows_of(table, series).items()
    ]


def _rows_of(table: Table, series: str | None) -> dict[str, Indices]:
    if series is None:
        return {"": np.arange(table.n)}
    names = table.texts(series)
    return {name: np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())}


def _of_arrays(path: Path, label: str | None) -> list[Series]:
    x, *labels = read_npz(path, "x", *([] if label is None else [label]))
    if x.dtype.kind not in "iufb" or x.ndim not in (1, 2, 3) or not x.size:
        raise InputError(
            f"{path}: x must be numbers (n_steps, columns) or (n_series, n_steps, columns), not {x.dtype} of shape {x.shape}"
        )
    values = x.reshape(len(x), 1) if x.ndim == 1 else x
    values = values[None] if values.ndim == 2 else values
    bad = np.argwhere(~np.isfinite(values.astype(np.float64)))
    if len(bad):
        where = f"step {bad[0][1]}, column {bad[0][2]}" + (f", series {bad[0][0]}" if len(values) > 1 else "")
        raise InputError(f"{path}, {where}: the value is not finite")
    found = [{str(column): one[:, column] for column in range(one.shape[1])} for one in values]
    for name, array in zip([label or ""], labels, strict=False):
        if array.size != values.shape[0] * values.shape[1]:
            raise InputError(
                f"{path}: {name} has shape {array.shape}, but x has {values.shape[:2]} series and steps"
            )
        for columns, of_series in zip(found, array.reshape(values.shape[:2]), strict=True):
            columns[name] = of_series
    return [Series(str(i), columns, np.arange(values.shape[1])) for i, columns in enumerate(found)]
