"""All trained and compressed networks of finished and running studies, as one table."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators.column import Column
from search.knowledge.base import PastStudy
from search.knowledge.study_files import read_study
from search.record.curve import curve_of
from search.record.storage.journal import read_records
from search.record.trial_records import record_from_json
from search.record.values import number
from spaces.errors import InputError, ParedownError

if TYPE_CHECKING:
    import pandas as pd

    from search.record.results import TrialRecord

ARCHITECTURE = "architecture"  # the stage whose notes have a network's structure and counts
COUNTS = ("macs", "parameters", "peak_activation_bytes")
FIRST = ("study", "folder", "task", "model", "structure", "number", "state", *COUNTS)


def results(*folders: str | Path) -> "pd.DataFrame":
    """Returns a row for every trial of the studies in some folders, at any depth.

    A study that is damaged, half-written or without a journal (`study.storage` names a database) is left out; of one that is
    running, the trials that have ended are returned.

    Args:
        *folders: Folders; `outputs` if none is given.

    Returns:
        Columns: `study`, `folder`, `task`, `model`; `structure`, a digest that is equal for networks with the same layers
        and shapes (None where no architecture was searched); `number`, `state`; `macs`, `parameters`,
        `peak_activation_bytes` of the network before it was cut and quantized; then `knob.*`, `metric.*`, `cost.*` and
        `seconds.*` as in trials.csv, `wall_s`, and `curve`, the metric after each epoch (a tuple; None where nothing was trained
        or the network was cached).

    Raises:
        InputError: A folder does not exist.
    """
    import pandas as pd

    rows = [row for folder in _studies(folders or ("outputs",)) for row in _rows(folder)]
    table = pd.DataFrame(rows)
    measured = {text: column for text in table.columns if (column := Column.find(text)) is not None}
    listed = [
        *(c for c in table.columns if c.startswith("knob.")),
        *sorted(measured, key=lambda text: measured[text].is_cost),
        *(c for c in table.columns if c.startswith("seconds.")),
    ]
    last = [c for c in ("wall_s", "curve") if c in table]
    return table.reindex(columns=[*FIRST, *listed, *last])


def networks(table: "pd.DataFrame", column: str) -> "pd.DataFrame":
    """Returns the best trial of every structure, by one column, and how many trials each has.

    Args:
        table: As `results` returns it.
        column: The column to maximise, e.g. `metric.top1`.

    Returns:
        The rows, best first, with `n_trials` and `n_studies` of the structure. Trials without a structure or without a value are left
        out.

    Raises:
        InputError: No row has both.
    """
    usable = table[table["structure"].notna() & table.get(column, table["structure"].isna()).notna()]
    if column not in table or usable.empty:
        raise InputError(f"no trial with an architecture stage has {column}")
    groups = usable.groupby(["task", "structure"], sort=False)
    best = usable.loc[groups[column].idxmax()].set_index(["task", "structure"])
    best["n_trials"], best["n_studies"] = groups.size(), groups["folder"].nunique()
    return best.reset_index().sort_values(column, ascending=False, kind="stable", ignore_index=True)


def rank_correlations(table: "pd.DataFrame", column: str) -> dict[str, float]:
    """Returns Spearman's rank correlation of each count with a column over `networks`; those without spread are left out."""
    import numpy as np
    from scipy.stats import spearmanr

    found = {}
    for name in COUNTS:
        pairs = table[[name, column]].dropna()
        if len(pairs) > 2 and pairs.nunique().min() > 1:
            found[name] = float(np.asarray(spearmanr(pairs[name], pairs[column]).statistic))
    return found


def _studies(folders: Sequence[str | Path]) -> Iterator[Path]:
    """Yields the folders of studies, each once."""
    seen: dict[Path, None] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder; give one that contains studies (default: outputs)")
        seen |= dict.fromkeys(path.parent.resolve() for path in sorted(folder.rglob("config.yaml")))
    yield from seen


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    study = read_study(folder)
    if not isinstance(study, PastStudy):
        return
    try:
        records = [record_from_json(text) for text in read_records(folder)]
    except (ParedownError, ValueError, KeyError):  # a damaged journal
        return
    about = {
        "study": study.name,
        "folder": str(folder),
        "task": study.metadata.task,
        "model": study.metadata.model,
    }
    for record in sorted(records, key=lambda record: record.number):
        yield {**about, **_row(record)}


def _row(record: "TrialRecord") -> dict[str, Any]:
    notes: Mapping[str, Any] = (record.details.get("stages") or {}).get(ARCHITECTURE) or {}
    curve = curve_of(record.details)
    return {
        "structure": notes.get("structure"),
        "number": record.number,
        "state": record.state,
        **{name: number(str(notes[name])) if name in notes else None for name in COUNTS},
        **{f"knob.{path}": value for path, value in record.candidate.items()},
        **record.values(),
        **{f"seconds.{step}": seconds for step, seconds in record.seconds.items()},
        "wall_s": record.wall_s,
        "curve": None if curve is None else curve.values,
    }
