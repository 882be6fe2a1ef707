"""Reads a source within a time limit, whatever it waits for: a server, a disk."""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from search.knowledge.base import Deadline, PastStudy, Refused


@dataclass(frozen=True)
class Found:
    """What was read in time.

    Attributes:
        studies: The studies, and those that cannot be used.
        complete: Whether there was nothing left to read.
    """

    studies: tuple[PastStudy | Refused, ...]
    complete: bool


def read_within(studies: Iterator[PastStudy | Refused], deadline: Deadline) -> Found:
    """Returns what the source yields until the deadline. A source that hangs is left behind in its own thread."""
    handed: queue.SimpleQueue[PastStudy | Refused | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            for study in studies:
                handed.put(study)
                if deadline.passed:
                    return
        except Exception as error:  # nothing that a source meets may stop the study
            handed.put(Refused("earlier studies", f"{type(error).__name__}: {error}".partition("\n")[0]))
        if not deadline.passed:
            handed.put(None)

    threading.Thread(target=work, name="knowledge", daemon=True).start()
    found: list[PastStudy | Refused] = []
    while True:
        try:
            study = handed.get(block=not deadline.passed, timeout=deadline.left_s)
        except queue.Empty:
            return Found(tuple(found), False)
        if study is None:
            return Found(tuple(found), True)
        found.append(study)
        if deadline.passed and handed.empty():
            return Found(tuple(found), False)
