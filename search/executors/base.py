"""The interface of executors, which run trials.

::

    submit(request) ──> running ──> next_result() ──> TrialResult
                           │
                           └─ worker died or ran too long ──> TrialResult(outcome="failed", reason=...)
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from search.trials.trial import TrialRequest, TrialResult, TrialRunner


class Executor(ABC):
    """Runs trials and returns their results in any order. Workers return values; only the study writes files.

    `start` is called once, before the first `submit`; `close` is called last, also after an interruption.
    """

    @property
    @abstractmethod
    def slots(self) -> int:
        """Most trials that may be submitted and not yet returned."""

    @abstractmethod
    def start(self, runner: TrialRunner) -> None:
        """Starts the workers.

        Raises:
            ConfigError: The executor cannot work as configured (e.g. no cluster at that address).
        """

    @abstractmethod
    def submit(self, request: TrialRequest) -> None:
        """Starts a trial and returns at once (a serial executor may run it in `next_result`)."""

    @abstractmethod
    def next_result(self, timeout_s: float | None = None) -> TrialResult | None:
        """Returns the next finished trial.

        Args:
            timeout_s: Most seconds to wait; None waits without limit.

        Returns:
            A result, or None if no trial finished in time. Returns None at once if no trial is submitted.
        """

    @abstractmethod
    def close(self) -> None:
        """Stops the workers; running trials are abandoned."""


@dataclass
class Running:
    """A trial that was given to a worker; its time limit counts from when the worker reports that it runs.

    Attributes:
        request: The trial's request.
        began: `time.monotonic()` of that report; None while the trial is queued or its worker starts.
    """

    request: TrialRequest
    began: float | None = None

    def expires(self) -> float | None:
        """Returns the `time.monotonic()` at which its limit ends; None without a limit or before it runs."""
        if self.request.time_limit_s is None or self.began is None:
            return None
        return self.began + self.request.time_limit_s

    def is_late(self) -> bool:
        """Returns whether it has exceeded its time limit."""
        expires = self.expires()
        return expires is not None and expires <= time.monotonic()

    def ran_s(self) -> float:
        """Returns the seconds that it has run."""
        return 0.0 if self.began is None else time.monotonic() - self.began


def pause_s(until: float | None, running: Iterable[Running]) -> float | None:
    """Returns the seconds to wait for workers: to `until` or the first time limit; None without either."""
    limits = [t for t in (until, *(r.expires() for r in running)) if t is not None]
    return max(0.0, min(limits) - time.monotonic()) if limits else None


def failure(running: Running, reason: str) -> TrialResult:
    """Returns the result of a trial whose worker could not return one."""
    request = running.request
    return TrialResult(request.id, request.candidate, "failed", reason=reason, wall_s=running.ran_s())


def late(running: Running) -> TrialResult:
    """Returns the result of a trial that was stopped because it ran over its time limit."""
    limit = f"study.trial_time_limit of {running.request.time_limit_s:g} s"
    return failure(running, f"TimeLimitError: the trial ran longer than {limit} and was stopped")
