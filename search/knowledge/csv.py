"""Knowledge from a CSV table: `task`, `task.*`, `knob.*`, `metric.*`, `cost.<device>.*`, float values."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from evaluators.column import Column
from search.knowledge.base import Deadline, KnowledgeSource, Own, PastStudy, PastTrial, Refused
from search.knowledge.table import Table, TableRow, read_table
from search.record.metadata import StudyMetadata
from spaces.errors import ConfigError, InputError

_MOST_BYTES = 200 * 2**20
_FLOAT_ENDINGS = ("_float", "_fp32")  # suffixes of metric columns with the float model's value


class CsvKnowledge(KnowledgeSource):
    """Reads a table; each of its tasks is a study.

    The float model's value of `metric.top1` may be in a column `baseline.metric.top1`, `metric.top1_float` or
    `metric.top1_fp32`, or follow from `metric.top1_drop`. `task.*` columns describe the task.

    Args:
        path: The file, `.csv` or `.csv.gz`.
        seconds: Most seconds that reading may take in all.

    Raises:
        ConfigError: `seconds` is not above 0.
    """

    def __init__(self, path: str, seconds: float = 5.0) -> None:
        if not seconds > 0:
            raise ConfigError(
                f"knowledge.seconds must be above 0, not {seconds}; knowledge=none reads nothing"
            )
        self._path = Path(path).expanduser()
        self.seconds = seconds

    def studies(self, own: Own, deadline: Deadline) -> Iterator[PastStudy | Refused]:
        """Yields a study per task, in the table's order."""
        del own
        try:
            if self._path.is_file() and self._path.stat().st_size > _MOST_BYTES:
                raise InputError(f"it is larger than {_MOST_BYTES // 2**20} MiB")
            table = read_table(self._path)
        except (InputError, OSError) as error:
            yield Refused(str(self._path), str(error))
            return
        for task in table.tasks:
            if deadline.passed:
                return
            yield _study(table, task)


def _study(table: Table, task: str) -> PastStudy:
    rows = table.of_task(task)
    metadata = StudyMetadata(model=task, descriptors=table.descriptors[task])
    return PastStudy(f"{task} of {table.path.name}", metadata, tuple(map(trial_of, rows)))


def trial_of(row: TableRow) -> PastTrial:
    """Returns a row as a trial, with the float model's values as far as the table has them."""
    values = {**{str(Column.of(name)): value for name, value in row.metrics.items()}, **row.costs}
    knobs = {name: value for name, value in row.knobs.items() if value is not None}
    return PastTrial(knobs, values, {**_float_values(values), **row.baseline})


def _float_values(values: Mapping[str, float]) -> dict[str, float]:
    float_values = {}
    for column, value in values.items():
        for ending in _FLOAT_ENDINGS:
            if column.endswith(ending) and column.removesuffix(ending) in values:
                float_values[column.removesuffix(ending)] = value
        if column.endswith("_drop") and column.removesuffix("_drop") in values:
            float_values[column.removesuffix("_drop")] = values[column.removesuffix("_drop")] + value
    return float_values
