"""Keeps timed work alone on its machine.

Trials that only compute hold the lock shared, a timing holds it exclusively, across all worker processes of
all studies of one user on one machine. The lock is the kernel's (`flock`): a killed process lets go of it.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class MachineLock:
    """A shared/exclusive lock for this machine.

    Args:
        folder: Where the lock files are; None takes the system's folder for temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Held while computing."""
        # passing the turnstile first lets a waiting timing in before the next computation
        with self._held("turnstile", fcntl.LOCK_EX):
            handle = self._open("computing")
            fcntl.flock(handle, fcntl.LOCK_SH)
        try:
            yield
        finally:
            os.close(handle)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Held while timing."""
        with self._held("turnstile", fcntl.LOCK_EX), self._held("computing", fcntl.LOCK_EX):
            yield

    @contextmanager
    def _held(self, name: str, how: int) -> Iterator[None]:
        handle = self._open(name)
        try:
            fcntl.flock(handle, how)
            yield
        finally:
            os.close(handle)

    def _open(self, name: str) -> int:
        folder = self._folder or Path(tempfile.gettempdir())
        path = folder / f"paredown-{os.getuid()}-{name}.lock"
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
