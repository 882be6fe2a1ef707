"""Keeps computations from running during a timing on the same machine.

Trials that only compute hold the lock shared, a timing holds it exclusively, across all worker processes of all studies of
one user on one machine. It consists of file locks, which the system releases when a process is killed.

Who waits for whom::

    a computation   for a timing that runs (seconds), of any study; and for one that waits, of its own study only
    a timing        for another timing that runs; for running computations of its own study, however long they take, since
                    no new ones begin; for those of other studies at most `PATIENCE_S`

So nobody waits for another study's training, unless it is to time something, and then only so long that short trials leave
a gap: a study of short trials beside a long training would else be held up by every timing. After that the timing is made
beside the training: `Hold.beside` says so, and the spread of the timing (its interquartile range) shows what it did. No
timing starves, and none is disturbed without a word.
"""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

PATIENCE_S = 10.0
"""Most seconds that a timing waits for computations of other studies."""
_POLL_S, _DOOR_POLL_S = 0.05, 0.005
_Kind = Literal["computing", "timing", "waiting"]


@dataclass(frozen=True)
class Hold:
    """How the lock came to be held.

    Attributes:
        waited_s: Seconds until it was.
        beside: Computations of other studies that run beside a timing, in words.
    """

    waited_s: float
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wait:
    """A computation or a timing of this study that waits.

    Attributes:
        is_timing: Whether a timing waits, or a computation.
        whom: For whom, in words.
        seconds: For how long by now.
    """

    is_timing: bool
    whom: str
    seconds: float


@dataclass(frozen=True)
class _Note:
    """The text beside a lock file: who holds it.

    Attributes:
        pid: The process.
        study: Identifies the study.
        name: The study's name.
        since: When it began, in seconds since the epoch.
        times: Whether it times, or waits to time.
        whom: For whom it waits; empty if it does not.
    """

    pid: int
    study: str
    name: str
    since: float
    times: bool
    whom: str = ""

    def text(self, reader: str) -> str:
        """Returns who this is, for the study `reader`."""
        what = "timing" if self.times else "computation"
        if self.study == reader:
            return f"a {what} of this study, pid {self.pid}"
        return f"another study's {what}, pid {self.pid} (study {self.name})"


class MachineLock:
    """A shared/exclusive lock for this machine.

    Whoever computes, times or waits holds a lock file of its own (`computing-0.lock`), with a note beside it. Looking at
    them and making one is done behind `door.lock`, which is held for a moment only.

    Args:
        folder: Folder of the lock files; None takes a folder of this user in the system's temporary folder.
        study: Identifies the study, e.g. its folder.
        name: The study's name, for messages of other studies.
    """

    def __init__(self, folder: Path | None = None, study: str = "", name: str = "") -> None:
        self._folder, self._study, self._name = folder, study, name or "without a name"

    @contextmanager
    def shared(self) -> Iterator[Hold]:
        """Held while computing."""
        with self._held(times=False) as hold:
            yield hold

    @contextmanager
    def exclusive(self) -> Iterator[Hold]:
        """Held while timing."""
        with self._held(times=True) as hold:
            yield hold

    def waits(self) -> tuple[Wait, ...]:
        """Returns who of this study waits at present, in any of its processes, the longest first."""
        with self._door():
            notes = [note for note in self._notes("waiting") if note.study == self._study and note.whom]
        now = time.time()
        notes.sort(key=lambda note: note.since)
        return tuple(Wait(n.times, n.whom, max(0.0, now - n.since)) for n in notes)

    @contextmanager
    def _held(self, times: bool) -> Iterator[Hold]:
        own = _Note(os.getpid(), self._study, self._name, time.time(), times)
        slot, hold = self._enter(own)
        try:
            yield hold
        finally:
            slot.release()

    def _enter(self, own: _Note) -> tuple["_Slot", Hold]:
        """Waits until `own` may begin; returns its lock file."""
        kind: _Kind = "timing" if own.times else "computing"
        began, waiting = time.monotonic(), None
        try:
            while True:
                waited_s = time.monotonic() - began
                with self._door():
                    blockers, beside = self._in_the_way(own, waited_s)
                    if not blockers:
                        return self._first_free(kind, own), Hold(
                            waited_s, tuple(n.text(own.study) for n in beside)
                        )
                    note = replace(own, whom=blockers[0].text(own.study))
                    if waiting is None:
                        waiting = self._first_free("waiting", note)
                    else:
                        waiting.write(note)
                pause(_POLL_S)
        finally:
            if waiting is not None:
                waiting.release()

    def _in_the_way(self, own: _Note, waited_s: float) -> tuple[list[_Note], list[_Note]]:
        """Returns whom to wait for, and beside whom a timing would be made."""
        timing = self._notes("timing")
        if not own.times:
            mine = [n for n in self._notes("waiting") if n.times and n.study == own.study]
            return [*timing, *mine], []
        computing = self._notes("computing")
        others = [n for n in computing if n.study != own.study]
        if waited_s < PATIENCE_S:
            return [*timing, *computing], []
        return [*timing, *(n for n in computing if n.study == own.study)], others

    def _notes(self, kind: _Kind) -> list[_Note]:
        """Returns the notes of all lock files of a kind that are held; called behind the door."""
        notes = []
        for path in sorted(self._made_folder().glob(f"{kind}-*.lock")):
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                notes.append(_read(path))
            else:
                lock.release()
        return notes

    def _first_free(self, kind: _Kind, note: _Note) -> "_Slot":
        """Locks the first file of a kind that nobody holds; called behind the door."""
        number = 0
        while True:
            path = self._made_folder() / f"{kind}-{number}.lock"
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                number += 1
            else:
                slot = _Slot(lock, path)
                slot.write(note)
                return slot

    @contextmanager
    def _door(self) -> Iterator[None]:
        lock = FileLock(self._made_folder() / "door.lock")
        lock.acquire(poll_interval=_DOOR_POLL_S)
        try:
            yield
        finally:
            lock.release()

    def _made_folder(self) -> Path:
        folder = self._folder or Path(tempfile.gettempdir()) / f"paredown-{_user()}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder


@dataclass(frozen=True)
class _Slot:
    """A lock file that is held, with a note beside it."""

    lock: FileLock
    path: Path

    def write(self, note: _Note) -> None:
        """Writes the note; one that cannot be written (a full disk) is no reason not to compute."""
        with contextlib.suppress(OSError):
            self.path.with_suffix(".json").write_text(json.dumps(asdict(note)))

    def release(self) -> None:
        """Lets others hold it."""
        self.lock.release()


def pause(seconds: float) -> None:
    """Waits between two looks at who is in the way."""
    time.sleep(seconds)


def _read(path: Path) -> _Note:
    """Returns the note of a lock file that is held; one of an unknown study if it cannot be read."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        data: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
        return _Note(**data)
    return _Note(0, "unknown", "unknown", time.time(), times=path.name.startswith("timing"))


def _user() -> str:
    """Returns the user's id as text: users may share the temporary folder; on Windows each has one."""
    return str(os.getuid()) if hasattr(os, "getuid") else "locks"
