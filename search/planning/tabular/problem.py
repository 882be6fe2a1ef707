"""One task of a table: its rows are the candidates of a study."""

import math
import zlib
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.base import Measurement
from evaluators.column import Column
from evaluators.metric import Direction
from search.knowledge.base import PastTrial
from search.knowledge.csv import trial_of
from search.knowledge.table import Table, TableRow, read_table
from search.record.objectives import Measured
from search.samplers.candidates.context import KnowledgeRow
from spaces.candidate import Value
from spaces.errors import ConfigError, unknown_name
from spaces.knobs import Choices, Domain, Knob, Range
from spaces.space import Space

_MOST_CHOICES = 16  # a knob with more numbers is a range


class TabularProblem:
    """One task of a table: its rows are the candidates, the other tasks' rows are the knowledge.

    Args:
        path: The CSV file, see `search.knowledge.table.read_table`.
        task: The task to search; may be left out if the table has only one.
        metric: What `metric` stands for in objectives and limits, with or without `metric.`; None is the first
            metric of the table.
        direction: Which end of the metric is better.
        seed: Breaks ties in `nearest`.

    Raises:
        InputError: The table is wrong (see `read_table`).
        ConfigError: The task, metric or direction is unknown.
    """

    def __init__(
        self,
        path: str | Path,
        task: str | None = None,
        metric: str | None = None,
        direction: Direction = "maximize",
        seed: int = 0,
    ) -> None:
        self.table: Table = read_table(path)
        self.task = self._task(task)
        self.metric = self._metric(metric)
        if direction not in ("maximize", "minimize"):
            raise ConfigError(f"tabular.direction must be maximize or minimize, not {direction!r}")
        self.direction: Direction = direction
        self.rows: tuple[TableRow, ...] = self.table.of_task(self.task)
        self._seed = seed

    def _task(self, task: str | None) -> str:
        tasks = self.table.tasks
        if task is None and len(tasks) > 1:
            raise ConfigError(
                f"tabular.task must be one of the tasks of {self.table.path}: {', '.join(tasks)}"
            )
        return tasks[0] if task is None else str(task)

    def _metric(self, metric: str | None) -> str:
        if metric is None:
            return self.table.metrics[0]
        column = Column.find(str(metric))  # `metric.NAME` or NAME
        name = str(metric) if column is None else column.name
        if name not in self.table.metrics:
            raise ConfigError(unknown_name("metric", metric, self.table.metrics, f"{self.table.path}"))
        return name

    @cached_property
    def measured(self) -> Measured:
        """What objectives and limits may name: every `metric.*` and `cost.<device>.*` column of the table."""
        costs = dict.fromkeys(column for row in self.table.rows for column in row.costs)
        columns = [*(str(Column.of(name)) for name in self.table.metrics), *costs]
        devices = dict.fromkeys(device for c in columns if (device := Column.parse(c).device) is not None)
        baseline = {c: value for c in columns if (value := self.baseline(c)) is not None}
        return Measured(
            self.metric,
            tuple(devices),
            columns,
            direction=self.direction,
            baseline={c: measurement_of(c, value) for c, value in baseline.items()},
        )

    # -- the space and its candidates --------------------------------------------------------------------

    def space_config(self) -> dict[str, dict[str, list[Value]]]:
        """Returns `{knob: {"choices": [...]}}`: numbers ascending, others in order of appearance, None (inactive) last.

        A knob with more than 16 numbers is a range, `{"float": [low, high]}` or `{"int": [low, high]}`, which samplers of
        numbers can search; a proposal between the rows is answered with the nearest.
        """
        return {knob.path: _config_of(knob.domain) for knob in self.space().knobs}

    def space(self) -> Space:
        """Returns that space; names of knobs may hold any character."""
        return Space(
            [Knob(name, _domain([row.knobs[name] for row in self.rows])) for name in self.table.knobs]
        )

    @property
    def candidates(self) -> list[dict[str, Value]]:
        """The rows' knobs, in file order: the pool for samplers."""
        return [dict(row.knobs) for row in self.rows]

    def values(self, row: TableRow) -> Mapping[str, float]:
        """Returns a row's numbers by column: `metric.*` and `cost.<device>.*`."""
        return self._trials[row.index].values

    @cached_property
    def _trials(self) -> tuple[PastTrial, ...]:
        return tuple(trial_of(row) for row in self.table.rows)

    def knowledge(self, column: str) -> tuple[KnowledgeRow, ...]:
        """Returns the other tasks' rows that have a value in the column."""
        return tuple(
            KnowledgeRow(
                row.task,
                row.knobs,
                trial.values[column],
                self.table.descriptors[row.task],
                trial.baseline.get(column),
            )
            for row, trial in zip(self.table.rows, self._trials, strict=True)
            if row.task != self.task and column in trial.values
        )

    @property
    def descriptors(self) -> Mapping[str, float]:
        """Numeric descriptors of the task: its `task.*` columns."""
        return self.table.descriptors[self.task]

    def baseline(self, column: str) -> float | None:
        """Returns the uncompressed model's value, if the table has it (see `CsvKnowledge`); else None."""
        found = (self._trials[row.index].baseline.get(column) for row in self.rows)
        return next((value for value in found if value is not None), None)

    def row(self, values: Mapping[str, Any]) -> TableRow | None:
        """Returns the row with exactly these values (a knob that is left out is None), or None."""
        return self._by_values.get(self._key(values))

    @cached_property
    def _by_values(self) -> dict[tuple[Any, ...], TableRow]:
        return {self._key(row.knobs): row for row in self.rows}

    def _key(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(values.get(name) for name in self.table.knobs)

    # -- proposals that are not rows ---------------------------------------------------------------------

    def nearest(self, values: Mapping[str, Any], exclude: Collection[int] = ()) -> TableRow | None:
        """Returns the row nearest to a proposal.

        The distance is the number of knobs that differ, where a number counts by its distance over the range of its
        column. Ties are broken at random by the seed and the proposal, so the same proposal gets the same row.

        Args:
            values: Knob to value; a knob that is left out is None.
            exclude: `TableRow.index` of rows that must not be returned, e.g. because they were measured.

        Returns:
            The row; None if all are excluded.
        """
        allowed = np.array([i for i, row in enumerate(self.rows) if row.index not in exclude], dtype=np.intp)
        if not len(allowed):
            return None
        distances = sum(self._distances(name, values.get(name))[allowed] for name in self.table.knobs)
        nearest = allowed[np.flatnonzero(np.isclose(distances, np.min(distances), rtol=0, atol=1e-9))]
        rng = np.random.default_rng([self._seed, zlib.crc32(repr(self._key(values)).encode())])
        return self.rows[int(rng.choice(nearest))]

    def _distances(self, name: str, value: Any) -> NDArray[np.float64]:
        """Returns `(n_rows,)` distances in [0, 1] of one knob."""
        numbers = self._numbers.get(name)
        if numbers is not None and _is_number(value):
            span = np.nanmax(numbers) - np.nanmin(numbers)
            gaps = np.minimum(np.abs(numbers - value) / (span or 1.0), 1.0)
            return np.where(np.isnan(gaps), 1.0, gaps)
        return np.array([row.knobs[name] != value for row in self.rows], dtype=np.float64)

    @cached_property
    def _numbers(self) -> dict[str, NDArray[np.float64]]:
        """The columns `(n_rows,)` of numeric knobs, NaN where inactive."""
        columns = {name: [row.knobs[name] for row in self.rows] for name in self.table.knobs}
        return {
            name: np.array([math.nan if v is None else v for v in column], dtype=np.float64)
            for name, column in columns.items()
            if all(v is None or _is_number(v) for v in column) and any(v is not None for v in column)
        }


def measurement_of(column: str, value: float) -> Measurement:
    """Returns a number of a table as a measurement; a table has no units."""
    at = Column.parse(column)
    return Measurement(at.name, value, "", "measured", at.device)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _domain(values: Sequence[Value]) -> Domain:
    ordered = _ordered(values)
    numbers = [v for v in ordered if isinstance(v, int | float) and _is_number(v)]
    if len(ordered) <= _MOST_CHOICES or len(numbers) < len(ordered):
        return Choices(tuple(ordered))
    return Range(float(numbers[0]), float(numbers[-1]), integer=all(isinstance(v, int) for v in numbers))


def _config_of(domain: Domain) -> dict[str, list[Value]]:
    if isinstance(domain, Choices):
        return {"choices": list(domain.values)}
    return (
        {"int": [int(domain.low), int(domain.high)]}
        if domain.integer
        else {"float": [domain.low, domain.high]}
    )


def _ordered(values: Sequence[Value]) -> list[Value]:
    distinct = list(dict.fromkeys(v for v in values if v is not None))
    if all(_is_number(v) for v in distinct):
        distinct.sort(key=lambda v: float(v))  # type: ignore[arg-type]  # numbers, as just checked
    return distinct + [None] * (None in values)
