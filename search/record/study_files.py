"""The files of a study folder, each rewritten atomically: a reader gets the old or the new file, complete.

Of the tables that grow with the trials, see `search.record.storage.tables`.
"""

import contextlib
import csv
import errno
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from search.record.results import BASELINE, DevicePick, StudyRecord, TrialRecord, model_path, number_label
from search.record.trial_records import finite, rows, split_values
from search.record.values import text_cell
from spaces.errors import StudyError
from spaces.stages.cache import write_atomic

_FULL = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EIO,
}  # errors of the disk, whatever the file
_FLOAT = "float.onnx"
_TEMPORARY = re.compile(r"\.[^/]+\.(csv|json|yaml|html|onnx|holder)\.\w{8}")  # write_atomic's


def make_folder(folder: Path) -> None:
    """Creates the study folder and checks that it can be written.

    Raises:
        StudyError: The folder cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
    except OSError as error:
        reason = error.strerror or str(error)
        raise StudyError(
            f"study.dir: cannot write to {folder}: {reason}; choose a folder that you may write"
        ) from error


def write_config(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes config.yaml."""
    write_atomic(
        folder / "config.yaml", yaml.safe_dump(dict(record), sort_keys=False, allow_unicode=True).encode()
    )


def write_model(folder: Path, record: TrialRecord, model: bytes) -> None:
    """Writes a trial's ONNX file, with the candidate in its metadata."""
    import onnx

    proto = onnx.load_model_from_string(model)
    onnx.helper.set_model_props(
        proto,
        {
            **{p.key: p.value for p in proto.metadata_props},
            "paredown.trial": record.label,
            "paredown.candidate": json.dumps(dict(record.candidate), sort_keys=True),
            "paredown.digest": record.candidate.digest,
        },
    )
    write_atomic(model_path(folder, record.number), proto.SerializeToString(deterministic=True))


def write_baseline(results: StudyRecord, dense: Callable[[], bytes]) -> None:
    """Writes the uncompressed model's file, if it is not there: see `float_path`."""
    if not float_path(results.folder).exists():
        write_model(results.folder, results.trial(BASELINE), dense())


def float_path(folder: Path) -> Path:
    """Returns where the uncompressed model's file is: `models/trial_baseline.onnx` while it is on the front, else `float.onnx`."""
    on_front = model_path(folder, BASELINE)
    return on_front if on_front.exists() else folder / _FLOAT


def drop_models_off_front(results: StudyRecord) -> None:
    """Deletes the files of models that have left the front; that of the uncompressed model is kept beside them."""
    on_front, apart = model_path(results.folder, BASELINE), results.folder / _FLOAT
    if BASELINE in results.front and apart.exists():
        apart.replace(on_front)
    elif BASELINE not in results.front and on_front.exists():
        on_front.replace(apart)
    kept = {model_path(results.folder, number).name for number in results.front}
    for path in (results.folder / "models").glob("trial_*.onnx"):
        if path.name not in kept:
            path.unlink()


def write_front(results: StudyRecord) -> None:
    """Writes pareto.csv: the rows of the front, with the columns of trials.csv; the uncompressed model's number is `baseline`.

    Where that is alone on the front, only its row has figures of the test split, and their columns are added.
    """
    front = [results.trial(number) for number in results.front]
    columns, _ = rows((*results.trials, *front), results.knobs)
    write_atomic(results.folder / "pareto.csv", csv_text(columns, [record.cells for record in front]))


def write_summary(results: StudyRecord, extra: Any) -> None:
    """Writes summary.json."""
    metrics, costs = split_values(results.baseline)
    states = results.states()
    summary = {
        "study": results.name,
        "sampler": results.sampler,
        "seed": results.config.get("seed"),
        "n_trials": len(results.trials),
        "n_complete": states["complete"],
        "n_infeasible": states["infeasible"],
        "n_failed": states["failed"],
        "n_pruned": states["pruned"],
        "n_cached": len(results.aliases),
        "wall_s": results.wall_s,
        "units": {m.name: m.unit for m in results.baseline if m.unit and not m.device},
        "baseline": {"metrics": metrics, "costs": costs},
        "best": None
        if results.best is None
        else {**_entry(results.trial(results.best)), "why": results.best_why},
        "devices": {p.device: {"best": _pick(results, p)} for p in results.picks},
        "pareto": [_number(number) for number in results.front],
        "hypervolume": results.hypervolume,
        "learned": list(results.learned),
        "ended": results.ended,
        "prediction": results.prediction,
        **extra,
    }
    write_atomic(results.folder / "summary.json", (json.dumps(finite(summary), indent=2) + "\n").encode())


def _entry(record: TrialRecord) -> dict[str, Any]:
    metrics, costs = split_values(record.measurements)
    return {
        "number": _number(record.number),
        "knobs": dict(record.candidate),
        "metrics": metrics,
        "costs": costs,
    }


def _pick(results: StudyRecord, pick: DevicePick) -> dict[str, Any]:
    why = f"{pick.why}. {pick.caveat}".rstrip(". ")
    return {
        **_entry(results.trial(pick.number)),
        "why": why,
        "ties_with": [_number(number) for number in pick.rivals],
    }


def _number(number: int) -> int | str:
    """Returns a trial's number, or `baseline`."""
    return number_label(number) if number == BASELINE else number


def csv_text(columns: list[str], table: Sequence[Mapping[str, str]]) -> bytes:
    """Returns a CSV file with a line of column names."""
    return b"".join(csv_lines(columns, [{column: column for column in columns}, *table]))


def csv_lines(columns: list[str], table: Sequence[Mapping[str, str]]) -> Iterator[bytes]:
    """Yields the lines of a CSV file, each with its newline.

    A spreadsheet would run a text that begins like a formula: it gets an apostrophe in front. Numbers stay as they are.
    """
    for row in table:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow([text_cell(row.get(column, "")) for column in columns])
        yield line.getvalue().encode()


@contextlib.contextmanager
def errors_told(folder: Path) -> Iterator[None]:
    """Turns errors of a full disk, and of a folder that cannot be written any more, into one message.

    Raises:
        StudyError: A file of the folder could not be written.
    """
    try:
        yield
    except OSError as error:
        named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
        inside = named is not None and folder.absolute() in (named.absolute(), *named.absolute().parents)
        if not inside and error.errno not in _FULL:
            raise
        reason = error.strerror or str(error)
        if not folder.is_dir():
            raise StudyError(
                f"{folder} was removed while its study ran ({reason}); what was in it is lost, unless study.storage is a "
                "database. The same command starts again"
            ) from error
        raise StudyError(
            f"cannot write {named if inside else f'the study in {folder}'}: {reason}. Every trial that was recorded is safe "
            "in study.journal (or study.storage). Make room, or see to it that the folder can be written, and run the same "
            "command again: it goes on from there and makes all other files whole"
        ) from error


def sweep(folder: Path) -> None:
    """Deletes the temporary files that killed processes left; only the study's one writer may call it."""
    for place in (folder, folder / "models"):
        for path in place.glob(".*"):
            if _TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)
