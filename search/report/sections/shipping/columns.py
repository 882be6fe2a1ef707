"""Which figures of a model are shown first, and how they are named."""

from evaluators.column import Column
from search.record.results import StudyRecord
from search.report.findings.figures import costs, device_of, headline_metric, label, on_test

_FILE_BYTES = str(Column.of("file_bytes"))
_QUALIFIERS = ("_drop", "_low", "_high")


def key_columns(results: StudyRecord, device: str | None) -> list[str]:
    """Returns the columns that decide on a device: the metric on both splits, objectives, limits and the file's size."""
    metric = headline_metric(results)
    wanted = [] if metric is None else [on_test(metric), metric]
    wanted += [o.column for o in results.objectives]
    wanted += costs(results, device) if device is not None else ()
    wanted += [c.column for c in results.constraints if c.limit != 0 and not c.column.endswith(_QUALIFIERS)]
    wanted.append(_FILE_BYTES)
    return [c for c in dict.fromkeys(wanted) if device is None or device_of(c) in (None, device)]


def row_name(results: StudyRecord, column: str, *, with_device: bool = False) -> tuple[str, str]:
    """Returns a column's name, and its split where it is a metric."""
    metric = headline_metric(results)
    if metric is not None and column == on_test(metric):
        return label(metric), "test split"
    return label(column, with_device=with_device), "validation split" if column == metric else ""
