"""Texts in a column of a table, with labels in another."""

from pathlib import Path
from typing import Any

from evaluators.task.data.data import needed_root
from evaluators.task.data.tables.read_table import read_table
from evaluators.task.data.text.text_data import TextData, Texts


class TextTable(TextData):
    """Reads a CSV, TSV or Parquet file.

    Args:
        text: Column of the texts.
        label: Column of the labels.
        group: Column of groups that are not divided between splits, e.g. authors; None without.
        **settings: Those of `TextData`.
    """

    def __init__(
        self, text: str = "text", label: str = "label", group: str | None = None, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self._text, self._label, self._group = text, label, group

    def texts(self, root: Path | None) -> Texts:
        """Returns the rows of the file.

        Raises:
            InputError: The file is missing or damaged, lacks a column, or a value is missing.
        """
        table = read_table(needed_root(root, "a .csv, .tsv or .parquet file"))
        groups = None if self._group is None else table.texts(self._group)
        return Texts(
            table.texts(self._text).tolist(), table.labels(self._label), table.rows, groups, str(table.path)
        )
