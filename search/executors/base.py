"""What an executor is: where trials run.

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
    """Runs trials and returns their results in any order. Only the study writes; workers return values.

    `start` is called once, before the first `submit`; `close` ends it, also after an interruption.
    """

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many trials may be submitted and not yet returned."""

    @abstractmethod
    def start(self, runner: TrialRunner) -> None:
        """Makes the workers ready.

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
            timeout_s: Give up after so many seconds; None waits.

        Returns:
            A result, or None if none came in time. With nothing submitted it returns None at once.
        """

    @abstractmethod
    def close(self) -> None:
        """Stops the workers; what is running is abandoned."""


@dataclass
class Running:
    """A trial that was given to a worker; its time limit counts from when the worker says that it runs.

    Attributes:
        request: What was given.
        began: `time.monotonic()` when the worker said so; None while the trial is queued, or its worker starts.
    """

    request: TrialRequest
    began: float | None = None

    def expires(self) -> float | None:
        """Returns when its time is up, by `time.monotonic()`; None if it has no limit, or does not run yet."""
        if self.request.time_limit_s is None or self.began is None:
            return None
        return self.began + self.request.time_limit_s

    def is_late(self) -> bool:
        """Whether its time is up."""
        expires = self.expires()
        return expires is not None and expires <= time.monotonic()

    def ran_s(self) -> float:
        """Returns for how many seconds it has run."""
        return 0.0 if self.began is None else time.monotonic() - self.began


def pause_s(until: float | None, running: Iterable[Running]) -> float | None:
    """Returns for how many seconds to wait for workers: until that time, or the end of the first time limit; None for ever."""
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
