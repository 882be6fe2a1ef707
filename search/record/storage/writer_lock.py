"""Locks that let one process at a time write a study, and say who holds them."""

import contextlib
import json
import os
import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from spaces.errors import StudyError
from spaces.stages.cache import write_atomic


@dataclass(frozen=True)
class Holder:
    """A process that writes a study, as the text that others are refused with."""

    host: str
    pid: int
    since: str  # e.g. 2026-11-29 20:15:03 UTC

    def __str__(self) -> str:
        return f"another process (host {self.host}, pid {self.pid}, since {self.since})"


def this_process() -> Holder:
    """Returns the holder that this process is, from now on."""
    return Holder(socket.gethostname(), os.getpid(), f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")


class WriterLock:
    """A file that is locked for as long as the process lives, with a neighbour `<file>.holder` that names it.

    The system's lock decides, not the neighbour: a process that is killed lets go of it, whoever gets its number next.

    Args:
        path: The file.
        what: What it protects, for messages, e.g. `the study in outputs/a`.

    Raises:
        StudyError: Another process holds it, or it cannot be locked.
    """

    def __init__(self, path: Path, what: str) -> None:
        self._neighbour = path.with_name(f"{path.name}.holder")
        self._lock = FileLock(path)
        try:
            self._lock.acquire(timeout=0)
            write_atomic(self._neighbour, json.dumps(asdict(this_process())).encode(), durable=False)
        except Timeout as error:
            raise refused(self._holder(), what) from error
        except OSError as error:
            self._lock.release()
            raise StudyError(f"cannot lock {what}: {path}: {error.strerror or error}") from error

    def release(self) -> None:
        """Lets another process take the lock; may be called twice."""
        if self._lock.is_locked:
            with contextlib.suppress(OSError):  # the folder may be gone
                self._neighbour.unlink(missing_ok=True)
            self._lock.release()

    def _holder(self) -> Holder | None:
        try:
            stored = json.loads(self._neighbour.read_text())
            return Holder(str(stored["host"]), int(stored["pid"]), str(stored["since"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def refused(holder: Holder | None, what: str) -> StudyError:
    """Returns the error for a second writer; None is a holder that cannot be told."""
    return StudyError(
        f"{holder or 'another process'} is writing {what}; wait for it, or use another study.name"
    )
