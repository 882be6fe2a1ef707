"""Where the record of a study is kept: an Optuna storage, by default a journal file that is written by one process."""

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
    """Locks a study's folder for this process, and returns the lock; a process that is killed lets go of it.

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
    """Opens the Optuna study of a folder, or makes it.

    Args:
        name: `study.name`.
        folder: `study.dir`.
        storage: An Optuna storage URL, `memory`, or None for the journal file in `folder`.
        objectives: For the directions.

    Raises:
        StudyError: The storage cannot be opened.
    """
    directions = [o.direction for o in objectives]
    try:
        with quiet():
            return optuna.create_study(
                study_name=name, storage=_storage(folder, storage), directions=directions, load_if_exists=True
            )
    except Exception as error:  # each kind of storage has exceptions of its own, SQLAlchemy's among them
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
    """Cuts off a last line that a killed process did not finish."""
    with contextlib.suppress(FileNotFoundError):
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            _LOG.warning("%s: dropped an unfinished last line", path)
            os.truncate(path, whole)


@contextlib.contextmanager
def quiet() -> Any:
    """Silences what Optuna tells of a study that it makes."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


class _NoLock(JournalFileOpenLock):
    """The study folder's own lock, which the system frees when a process is killed, guards the journal."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


class _Journal(JournalFileBackend):
    """Waits for the disk only when a trial's record is written: what goes before it is worth no such wait.

    A killed process loses nothing either way; a power cut may lose what came after the last record.
    """

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        with Path(self._file_path).open("ab") as file:
            file.write(("\n".join(lines) + "\n").encode())
            file.flush()
            if any("record" in log.get("user_attr", ()) for log in logs):
                os.fsync(file.fileno())
