"""What an executor is: where trials run.

::

    submit(request) ──> running ──> next_result() ──> TrialResult
                           │
                           └─ worker died or ran too long ──> TrialResult(outcome="failed", reason=...)
"""

from abc import ABC, abstractmethod

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


def failure(request: TrialRequest, reason: str, wall_s: float) -> TrialResult:
    """Returns the result of a trial whose worker could not return one."""
    return TrialResult(request.id, request.candidate, "failed", reason=reason, wall_s=wall_s)


def late(request: TrialRequest, wall_s: float) -> TrialResult:
    """Returns the result of a trial that was stopped because it ran over its time limit."""
    limit = f"study.trial_time_limit of {request.time_limit_s:g} s"
    return failure(request, f"TimeLimitError: the trial ran longer than {limit} and was stopped", wall_s)
