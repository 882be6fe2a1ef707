"""A thread that writes the latest state of a study to a slow store without stopping the search."""

import threading
import time
from collections.abc import Callable
from typing import Literal

from search.record.results import StudyRecord

Phase = Literal["running", "finished", "interrupted"]
Write = Callable[[StudyRecord, Phase, Callable[[], None]], None]
_LONGEST_PAUSE_S = 30.0


class Writer:
    """Passes the newest state to `write` on a thread of its own, and retries until it is written.

    Only the newest state is queued, because it contains all earlier ones: after an hour without a server, there is
    one state to write. What waits on disk is the study's own journal: if the process ends before the store is back, the
    next session reads it, and `write` writes what the store lacks.

    Args:
        write: Writes a state; called again with the same or a newer one if it raises, so it must skip what is
            written already. It calls its last argument after each step, as a sign of progress.
        retries: Further attempts after `close` was called, before the writer gives up.
        backoff_s: First pause after a failure, in seconds; doubles up to half a minute while nothing is written.
    """

    def __init__(self, write: Write, retries: int, backoff_s: float) -> None:
        self._write, self._retries, self._backoff_s = write, retries, backoff_s
        self._condition = threading.Condition()
        self._waiting: tuple[StudyRecord, Phase] | None = None
        self._is_closing = False
        self._error: Exception | None = None
        self._last_beat = time.monotonic()
        self._has_progressed = False
        self._thread = threading.Thread(target=self._run, name="paredown-tracker", daemon=True)
        self._thread.start()

    def put(self, results: StudyRecord, phase: Phase) -> None:
        """Makes `results` the state to write; returns at once."""
        with self._condition:
            self._waiting = (results, phase)
            self._condition.notify()

    def close(self, timeout_s: float) -> Exception | None:
        """Waits until the newest state is written, or until `timeout_s` seconds go by without progress.

        Returns:
            The last error if something could not be written, else None.
        """
        with self._condition:
            self._is_closing = True
            self._last_beat = time.monotonic()
            self._condition.notify()
        while self._thread.is_alive():
            self._thread.join(0.05)
            if time.monotonic() - self._last_beat > timeout_s:
                return self._error or TimeoutError(f"no answer for {timeout_s:g} s")
        return self._error

    def _beat(self) -> None:
        self._last_beat = time.monotonic()
        self._has_progressed = True

    def _run(self) -> None:
        failures = failures_while_closing = 0
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting is not None or self._is_closing)
                job, self._waiting = self._waiting, None
                closing = self._is_closing
            if job is None:
                return
            self._has_progressed = False
            self._error = self._attempt(job)
            if self._has_progressed:
                failures = failures_while_closing = 0
            if self._error is None:
                continue
            failures += not closing
            failures_while_closing += closing
            if failures_while_closing > self._retries:
                return
            doublings = min((failures_while_closing if closing else failures) - 1, 20)
            self._pause(min(_LONGEST_PAUSE_S, self._backoff_s * 2**doublings), job)

    def _attempt(self, job: tuple[StudyRecord, Phase]) -> Exception | None:
        try:
            self._write(*job, self._beat)
        except Exception as error:  # no error of a tracker stops the search
            return error
        self._beat()
        return None

    def _pause(self, seconds: float, job: tuple[StudyRecord, Phase]) -> None:
        """Waits, at most until `close` is called, then queues the job again unless a newer one is queued."""
        with self._condition:
            was_closing = self._is_closing
            self._condition.wait_for(lambda: self._is_closing and not was_closing, timeout=seconds)
            self._waiting = self._waiting or job
