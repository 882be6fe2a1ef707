"""The tables of a study folder that grow with its trials: trials.csv and aliases.csv."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from search.record.results import Alias, StudyRecord, TrialRecord
from search.record.study_files import csv_lines, csv_text
from search.record.trial_records import rows
from spaces.stages.cache import write_atomic


class TrialTables:
    """Appends a line per trial to trials.csv, and one per alias to aliases.csv.

    They are rewritten, atomically, at the start and the end of a session and where a trial has a new column. The study's
    storage has all trials, too: what a killed process left of its last line is gone with the first rewriting.

    Args:
        folder: `study.dir`.
    """

    def __init__(self, folder: Path) -> None:
        self._trials, self._aliases = _Table(folder / "trials.csv"), _Table(folder / "aliases.csv")

    def rewrite(self, results: StudyRecord) -> None:
        """Writes both files; aliases.csv only if any proposal was answered with an earlier trial."""
        self._trials.rewrite(*rows(results.trials, results.knobs))
        if results.aliases:
            self._aliases.rewrite(_alias_columns(results.knobs), _alias_rows(results.aliases))

    def add(self, results: StudyRecord) -> None:
        """Adds the trials and aliases that are not in the files yet."""
        if not self._trials.append([t.cells for t in results.trials[self._trials.n_rows :]]):
            self._trials.rewrite(*rows(results.trials, results.knobs))
        new = results.aliases[self._aliases.n_rows :]
        if new and not self._aliases.append(_alias_rows(new)):
            self._aliases.rewrite(_alias_columns(results.knobs), _alias_rows(results.aliases))


def _alias_columns(knobs: Iterable[str]) -> list[str]:
    return ["same_as", *(f"knob.{path}" for path in knobs)]


def _alias_rows(aliases: Sequence[Alias]) -> list[dict[str, str]]:
    cells = (TrialRecord(alias.same_as, "complete", "", alias.candidate).cells for alias in aliases)
    return [
        {"same_as": row["number"], **{name: cell for name, cell in row.items() if name.startswith("knob.")}}
        for row in cells
    ]


class _Table:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns: list[str] = []
        self._known: frozenset[str] = frozenset()
        self.n_rows = 0

    def rewrite(self, columns: list[str], table: Sequence[Mapping[str, str]]) -> None:
        # only the storage has to survive a power failure; a sync to disk would take too long
        write_atomic(self._path, csv_text(columns, table), durable=False)
        self._columns, self._known, self.n_rows = columns, frozenset(columns), len(table)

    def append(self, table: Sequence[Mapping[str, str]]) -> bool:
        """Appends rows, each in a single write, so that a reader gets whole lines; False if it takes a rewriting."""
        if not self._columns or not all(row.keys() <= self._known for row in table):
            return False
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        except FileNotFoundError:
            return False
        try:
            for line in csv_lines(self._columns, table):
                if os.write(file, line) < len(line):
                    return False  # the disk is full: the rewriting says so
                self.n_rows += 1
        finally:
            os.close(file)
        return True
