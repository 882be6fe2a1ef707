"""The storage of a study: an Optuna storage, by default a journal file with a single writing process."""

import contextlib
import copy
import json
import logging
import os
import sys
from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from search.record.redact import redact_text
from search.record.results import Objective
from search.record.storage.database import open_database, reason
from search.record.storage.writer_lock import WriterLock
from search.record.study_files import make_folder
from spaces.errors import ParedownError, StudyError

_LOG = logging.getLogger(__name__)
_RECORD = "record"  # a trial's attribute


def lock_folder(folder: Path) -> WriterLock:
    """Locks a study's folder for this process, and returns the lock; the system releases it with the process.

    Raises:
        StudyError: Another process writes the study, or the folder cannot be written.
    """
    make_folder(folder)
    return WriterLock(folder / ".lock", f"the study in {folder}")


def open_study(
    name: str, folder: Path, storage: str | None, objectives: Sequence[Objective], held: ExitStack
) -> optuna.Study:
    """Opens the Optuna study of a folder, or creates it.

    Args:
        name: `study.name`.
        folder: `study.dir`.
        storage: An Optuna storage URL, `memory`, or None for the journal file in `folder`.
        objectives: Objectives whose directions a new study gets.
        held: Gets what has to be closed at the end, e.g. the lock that makes this process the storage's only writer of
            the study, whatever its folder is.

    Raises:
        StudyError: The storage cannot be opened, or another process writes the study.
    """
    directions = [o.direction for o in objectives]
    try:
        with quiet():
            return optuna.create_study(
                study_name=name,
                storage=_storage(name, folder, storage, held),
                directions=directions,
                load_if_exists=True,
            )
    except ParedownError:
        raise
    except Exception as error:  # each storage backend raises its own exceptions, e.g. SQLAlchemy's
        where = folder / "study.journal" if storage is None else f"study.storage={redact_text(storage)!r}"
        raise StudyError(f"cannot open the study in {where}: {reason(error)}") from error


def _storage(name: str, folder: Path, storage: str | None, held: ExitStack) -> BaseStorage:
    if storage == "memory":
        return InMemoryStorage()
    if storage is not None:
        return open_database(storage, name, held)
    path = folder / "study.journal"
    _drop_torn_line(path)
    return _JournalStorage(_Journal(str(path), lock_obj=_NoLock(str(path))))


def _drop_torn_line(path: Path) -> None:
    """Truncates the file after its last newline: a killed process may have left an unfinished line."""
    with contextlib.suppress(FileNotFoundError):
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            _LOG.warning("%s: dropped an unfinished last line", path)
            os.truncate(path, whole)


def read_records(folder: Path) -> list[str]:
    """Returns the JSON of every trial's record in a study's journal, by trial; empty without a journal of one study.

    Only whole lines count, and nothing is written: the study may be running.

    Args:
        folder: The study's folder.
    """
    path = folder / "study.journal"
    if not path.is_file():
        return []
    storage = JournalStorage(_WholeLines(str(path), lock_obj=_NoLock(str(path))))
    with quiet():
        studies = storage.get_all_studies()
        if len(studies) != 1:
            return []
        trials = storage.get_all_trials(studies[0]._study_id, deepcopy=False)
    return [text for trial in trials if (text := record_of(trial)) is not None]


def write_record(trial: optuna.trial.Trial, text: str) -> None:
    """Writes a trial's record, as JSON: as a system attribute, which dashboards don't show."""
    trial.storage.set_trial_system_attr(trial._trial_id, _RECORD, text)


def record_of(trial: FrozenTrial) -> str | None:
    """Returns the JSON of a trial's record; None if it has none."""
    # version 0.2.0 wrote it as a user attribute
    text = trial.system_attrs.get(_RECORD, trial.user_attrs.get(_RECORD))
    return None if text is None else str(text)


@contextlib.contextmanager
def quiet() -> Any:
    """Returns a context in which Optuna logs warnings only, e.g. no message for each new study."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


class _NoLock(JournalFileOpenLock):
    """A lock without effect, since the study folder's lock protects the journal too.

    The system releases that one when the process is killed.
    """

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


class _WholeLines(JournalFileBackend):
    """Reads a file that another process may be writing: an unfinished last line is left out."""

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        if log_number_from:
            return
        for line in Path(self._file_path).read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                yield json.loads(line)


class _JournalStorage(JournalStorage):
    """Finds trials that have not ended without going through all that have: each proposal asks for them."""

    def __init__(self, backend: JournalFileBackend) -> None:
        self._n_ended: dict[int, int] = {}  # by study: trials at its beginning that have ended
        super().__init__(backend)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if states is None or any(state in states for state in TrialState if state.is_finished()):
            return super().get_all_trials(study_id, deepcopy, states)
        with self._thread_lock:
            self._sync_with_backend()
            known = self._replay_result
            ids = known._study_id_to_trial_ids[study_id]
            first = self._n_ended.get(study_id, 0)
            while first < len(ids) and known._trials[ids[first]].state.is_finished():
                first += 1
            self._n_ended[study_id] = first
            found = [trial for i in ids[first:] if (trial := known._trials[i]).state in states]
        return copy.deepcopy(found) if deepcopy else found


class _Journal(JournalFileBackend):
    """Reads the file once: this process is the only one that writes it, and knows what it has written since.

    Syncs the file to disk only when a trial's record is written; a sync for every log would be too slow. A killed process
    loses nothing either way; a power failure may lose the logs after the last record.
    """

    def __init__(self, path: str, lock_obj: JournalFileOpenLock) -> None:
        super().__init__(path, lock_obj)
        self._written: list[dict[str, Any]] | None = None  # since the last reading; None before the first one

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        if self._written is None:
            self._written = []
            return map(_with_shared_name, super().read_logs(log_number_from))
        written, self._written = self._written, []
        return iter(written)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        text = "".join(f"{line}\n" for line in lines).encode()
        file = os.open(self._file_path, os.O_WRONLY | os.O_APPEND)  # not created again if somebody deletes it
        try:
            before = os.fstat(file).st_size
            try:
                written = os.write(file, text)
                while written < len(text):  # a disk that is about to be full
                    written += os.write(file, text[written:])
            except OSError:
                os.ftruncate(file, before)  # no half line stands before what is written later
                raise
            if any(_RECORD in log.get("system_attr", ()) for log in logs):
                os.fsync(file)
        finally:
            os.close(file)
        if self._written is not None:
            self._written += [_with_shared_name(json.loads(line)) for line in lines]


def _with_shared_name(log: dict[str, Any]) -> dict[str, Any]:
    """Returns a log whose parameter's name is the same object in all trials, which keep it."""
    if "param_name" in log:
        log["param_name"] = sys.intern(log["param_name"])
    return log
