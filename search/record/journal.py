"""The storage of a study: an Optuna storage, by default a journal file with a single writing process."""

import contextlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from search.record.results import Objective
from search.record.study_files import make_folder
from spaces.errors import StudyError

_LOG = logging.getLogger(__name__)


def lock_folder(folder: Path) -> FileLock:
    """Locks a study's folder for this process, and returns the lock; the system releases it with the process.

    Raises:
        StudyError: Another process writes the study, or the folder cannot be written.
    """
    make_folder(folder)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StudyError(
            f"another process is writing the study in {folder}; wait for it, or use another study.name"
        ) from error
    return lock


def open_study(name: str, folder: Path, storage: str | None, objectives: Sequence[Objective]) -> optuna.Study:
    """Opens the Optuna study of a folder, or creates it.

    Args:
        name: `study.name`.
        folder: `study.dir`.
        storage: An Optuna storage URL, `memory`, or None for the journal file in `folder`.
        objectives: Objectives whose directions a new study gets.

    Raises:
        StudyError: The storage cannot be opened.
    """
    directions = [o.direction for o in objectives]
    try:
        with quiet():
            return optuna.create_study(
                study_name=name, storage=_storage(folder, storage), directions=directions, load_if_exists=True
            )
    except Exception as error:  # each storage backend raises its own exceptions, e.g. SQLAlchemy's
        where = folder / "study.journal" if storage is None else f"study.storage={storage!r}"
        raise StudyError(f"cannot open the study in {where}: {error}") from error


def _storage(folder: Path, storage: str | None) -> BaseStorage | str:
    if storage == "memory":
        return InMemoryStorage()
    if storage is not None:
        return storage
    path = folder / "study.journal"
    _drop_torn_line(path)
    return JournalStorage(_Journal(str(path), lock_obj=_NoLock(str(path))))


def _drop_torn_line(path: Path) -> None:
    """Truncates the file after its last newline: a killed process may have left an unfinished line."""
    with contextlib.suppress(FileNotFoundError):
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            _LOG.warning("%s: dropped an unfinished last line", path)
            os.truncate(path, whole)


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


class _Journal(JournalFileBackend):
    """Syncs the file to disk only when a trial's record is written; a sync for every log would be too slow.

    A killed process loses nothing either way; a power failure may lose the logs after the last record.
    """

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        with Path(self._file_path).open("ab") as file:
            file.write(("\n".join(lines) + "\n").encode())
            file.flush()
            if any("record" in log.get("user_attr", ()) for log in logs):
                os.fsync(file.fileno())
