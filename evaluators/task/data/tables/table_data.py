"""A table as examples: columns for inputs, labels and groups."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.data import Data, Examples, needed_root
from evaluators.task.data.named_split import NamedSplit
from evaluators.task.data.tables.read_table import Table, read_table
from evaluators.task.data.tables.scaling import Scaling
from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import ArraySplit, Indices

PARTS = ("train", "calibration", "validation", "test")
_MOST_EXACT = 2**24  # whole numbers up to which float32 represents all


class TableData(Data):
    """Reads a CSV, TSV or Parquet file; each row is an example.

    Args:
        label: Column of the labels, or columns of several.
        inputs: Columns of the input, in order; for a network with several inputs, columns by the inputs' names; None takes all
            columns that are neither labels nor groups nor splits. A Parquet column may hold lists of equal lengths.
        group: Column of groups that are not divided between splits; None without.
        split: Column that fixes the split of each row: train, calibration, validation or test, or nothing; None without.
        standardise: Whether each column is scaled to mean 0 and deviation 1 of the training split; columns of several inputs: of
            all, or those whose names are listed.
        test_root: A second file that is the test split as a whole; None carves the test split from `task.root`.
    """

    def __init__(
        self,
        label: str | Sequence[str],
        inputs: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        group: str | None = None,
        split: str | None = None,
        standardise: bool | Sequence[str] = True,
        test_root: str | None = None,
    ) -> None:
        self._label, self._group, self._split = label, group, split
        self._inputs, self._standardise = inputs, standardise
        self._test_root = None if test_root is None else Path(test_root).expanduser()
        for name, columns in (
            inputs if isinstance(inputs, Mapping) else {"": ["?"] if inputs is None else inputs}
        ).items():
            if not columns or isinstance(columns, str):
                raise ConfigError(
                    f"task.data.inputs{f'.{name}' if name else ''} must list columns, not {columns!r}"
                )
        known = [*inputs] if isinstance(inputs, Mapping) else []
        for name in standardise if not isinstance(standardise, bool) else ():
            if name not in known:
                raise ConfigError(
                    f"task.data.standardise names no input: {name!r}; there are {', '.join(known) or 'no names'}"
                )

    def read(self, root: Path | None) -> Examples:
        """Returns all rows.

        Raises:
            InputError: The file is missing or damaged, lacks a column, or a value is missing or of the wrong kind.
        """
        table = read_table(needed_root(root, "a .csv, .tsv or .parquet file"))
        first = self._examples(table, self._columns(table))
        if self._test_root is None:
            return first
        test_table = read_table(self._test_root)
        test = self._examples(test_table, self._columns(table))
        n = table.n
        groups = (
            None
            if first.groups is None or test.groups is None
            else np.concatenate([first.groups, test.groups])
        )
        parts = {**(first.parts or {}), "test": np.arange(n, n + test_table.n)}
        where = [*table.rows, *test_table.rows]
        both = (cast(ArraySplit | NamedSplit, e.split) for e in (first, test))
        return Examples(_joined(*both), groups, where, parts, first.folder)

    def fitted(self, examples: Examples, train: Indices) -> Examples:
        """Returns the examples with columns scaled by the training split."""
        split = examples.split
        if isinstance(split, NamedSplit):
            parts = {name: self._scaled(part, train, name) for name, part in split.parts.items()}
            return replace(examples, split=NamedSplit(parts))
        return replace(examples, split=self._scaled(cast(ArraySplit, split), train, ""))

    def _scaled(self, split: ArraySplit, train: Indices, name: str) -> ArraySplit:
        scales = self._standardise if isinstance(self._standardise, bool) else name in self._standardise
        raw = np.asarray(split.raw[:])
        if scales:
            return replace(split, transform=Scaling.of(raw[train].astype(np.float64)))
        large = raw.dtype.kind == "i" and np.abs(raw).max(initial=0) > _MOST_EXACT
        return split if large else replace(split, raw=raw.astype(np.float32))

    def _columns(self, table: Table) -> Mapping[str, Sequence[str]]:
        if isinstance(self._inputs, Mapping):
            return self._inputs
        if self._inputs is not None:
            return {"": self._inputs}
        taken = {*self._labels(), self._group, self._split}
        left = [name for name in table.columns if name not in taken]
        if not left:
            raise InputError(f"{table.path} has no columns besides labels, groups and splits")
        return {"": left}

    def _labels(self) -> list[str]:
        return [self._label] if isinstance(self._label, str) else [*self._label]

    def _examples(self, table: Table, columns: Mapping[str, Sequence[str]]) -> Examples:
        labels = self._label_values(table)
        parts = {name: ArraySplit(_side_by_side(table, names), labels) for name, names in columns.items()}
        split = parts[""] if "" in parts else NamedSplit(parts)
        groups = None if self._group is None else table.texts(self._group)
        fixed = None if self._split is None else self._parts(table, self._split)
        return Examples(split, groups, table.rows, fixed, str(table.path))

    def _label_values(self, table: Table) -> NDArray[Any]:
        if isinstance(self._label, str):
            return table.labels(self._label)
        return np.stack([table.numbers(name) for name in self._label], axis=1)

    def _parts(self, table: Table, column: str) -> dict[str, Indices]:
        names = table.texts(column, may_be_empty=True)
        for row, name in enumerate(names.tolist()):
            if name not in (*PARTS, ""):
                raise InputError(
                    f"{table.rows[row]}, column {column}: {name!r} is no split; there are {', '.join(PARTS)}"
                )
        return {part: np.flatnonzero(names == part) for part in PARTS if (names == part).any()}


def _side_by_side(table: Table, columns: Sequence[str]) -> NDArray[Any]:
    """Returns the columns as `(n, n_columns)`; those of lists have a column for each entry."""
    values = [table.numbers(name) for name in columns]
    return np.concatenate([v.reshape(len(v), -1) for v in values], axis=1)


def _joined(one: ArraySplit | NamedSplit, other: ArraySplit | NamedSplit) -> ArraySplit | NamedSplit:
    if isinstance(one, NamedSplit) and isinstance(other, NamedSplit):
        return NamedSplit({name: _one(part, other.parts[name]) for name, part in one.parts.items()})
    assert isinstance(one, ArraySplit)
    assert isinstance(other, ArraySplit)
    return _one(one, other)


def _one(one: ArraySplit, other: ArraySplit) -> ArraySplit:
    raws = np.concatenate([np.asarray(one.raw[:]), np.asarray(other.raw[:])])
    return ArraySplit(raws, np.concatenate([one.labels, other.labels]))
