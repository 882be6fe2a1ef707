"""Reads a source within a time limit, even if it blocks on a server or a disk."""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from search.knowledge.base import Deadline, PastStudy, Refused


@dataclass(frozen=True)
class Found:
    """The studies that were read within the time limit.

    Attributes:
        studies: The studies, and those that cannot be used.
        complete: Whether everything was read.
    """

    studies: tuple[PastStudy | Refused, ...]
    complete: bool


def read_within(studies: Iterator[PastStudy | Refused], deadline: Deadline) -> Found:
    """Returns the studies that the source yields until the deadline, from a thread that may hang."""
    results: queue.SimpleQueue[PastStudy | Refused | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            for study in studies:
                results.put(study)
                if deadline.passed:
                    return
        except Exception as error:  # no error of a source may stop the study
            results.put(Refused("earlier studies", f"{type(error).__name__}: {error}".partition("\n")[0]))
        if not deadline.passed:
            results.put(None)

    threading.Thread(target=work, name="knowledge", daemon=True).start()
    received: list[PastStudy | Refused] = []
    while True:
        try:
            study = results.get(block=not deadline.passed, timeout=deadline.left_s)
        except queue.Empty:
            return Found(tuple(received), False)
        if study is None:
            return Found(tuple(received), True)
        received.append(study)
        if deadline.passed and results.empty():
            return Found(tuple(received), False)
