"""Where the time of a study went, over all its sessions: what the trials themselves do not record."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from search.study.ledger import Ledger

_KEY = "phases"  # of the study attribute


class TimeAccount:
    """Adds up the seconds of each phase of a study's sessions.

    The phase `search` counts once for each worker, so that its trials and the workers' idle time make it up; every other
    phase counts once. A session that is killed is known up to its last trial.

    Args:
        ledger: The study's record, which keeps the account of earlier sessions.
        start_s: Seconds that it took to load everything and to measure the uncompressed model.
    """

    def __init__(self, ledger: Ledger, start_s: float) -> None:
        self._ledger = ledger
        self._seconds: dict[str, float] = dict(ledger.noted(_KEY) or {})
        self._searching: tuple[float, int] | None = None  # since when, and with how many workers
        self.add("start", start_s)

    def add(self, phase: str, seconds: float) -> None:
        """Adds seconds to a phase."""
        if seconds > 0:
            self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measures a phase."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - began)

    @contextmanager
    def search(self, workers: int) -> Iterator[None]:
        """Measures the search, in which so many workers run trials."""
        self._searching = time.monotonic(), workers
        try:
            yield
        finally:
            self.keep()
            self._searching = None

    def keep(self) -> None:
        """Stores the account with the study."""
        if self._searching is not None:
            now, (since, workers) = time.monotonic(), self._searching
            self.add("search", (now - since) * workers)
            self._searching = now, workers
        self._ledger.note(_KEY, self._seconds)

    def seconds(self) -> dict[str, float]:
        """Returns the seconds of each phase."""
        return dict(self._seconds)
