"""Keeps computations from running during a timing on the same machine.

Trials that only compute hold the lock shared, a timing holds it exclusively, across all worker processes of
all studies of one user on one machine. It consists of file locks, which the system releases when a process is
killed.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_TURNSTILE, _COMPUTING = "turnstile.lock", "computing-{}.lock"


class MachineLock:
    """A shared/exclusive lock for this machine.

    File locks are exclusive: every computation has a file of its own, and a timing waits for all of them.

    Args:
        folder: Folder of the lock files; None takes a folder of this user in the system's temporary folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Held while computing."""
        # passing the turnstile first lets a waiting timing in before the next computation
        with self._turnstile():
            own = self._first_free()
        try:
            yield
        finally:
            own.release()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Held while timing."""
        with self._turnstile():  # keeps further computations from beginning
            for path in self._made_folder().glob(_COMPUTING.format("*")):
                with FileLock(path):  # waits for this computation to end
                    pass
            yield

    def _turnstile(self) -> FileLock:
        return FileLock(self._made_folder() / _TURNSTILE)

    def _first_free(self) -> FileLock:
        """Locks the first file that no other computation holds."""
        number = 0
        while True:
            lock = FileLock(self._made_folder() / _COMPUTING.format(number))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                number += 1
            else:
                return lock

    def _made_folder(self) -> Path:
        folder = self._folder or Path(tempfile.gettempdir()) / f"paredown-{_user()}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder


def _user() -> str:
    """Returns the user's id as text: users may share the temporary folder; on Windows each has one."""
    return str(os.getuid()) if hasattr(os, "getuid") else "locks"
