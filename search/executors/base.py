"""The interface of executors, which run trials and other work of a study.

::

    submit(request) ──> running ──> next_result() ──> TrialResult
                           │
                           └─ worker died twice or ran too long ──> TrialResult(outcome="failed", reason=...)

    call("on_test", model) ──> the value of that method of the runner, or its error
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from search.trials.trial import TrialRequest, TrialResult, TrialRunner


class Executor(ABC):
    """Runs trials and returns their results in any order. Workers return plain data; only the study writes files.

    `start` is called once, before the first `submit` or `call`; `close` is called last, also after an interruption.

    Attributes:
        in_process: Whether trials run in the study's own process, which a native crash then ends.
    """

    in_process: ClassVar[bool] = False

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

        Raises:
            StudyError: No worker can be started.
        """

    @abstractmethod
    def call(self, method: str, *args: Any, time_limit_s: float | None = None, tries: int = 2) -> Any:
        """Calls a method of the runner where trials run, and waits for its value: plain data.

        Args:
            method: Name of a public method of the runner.
            *args: Its arguments.
            time_limit_s: Most seconds that it may run; None for no limit.
            tries: How often it is tried where its worker dies, of which another process may have been the cause.

        Raises:
            ParedownError: What the method raised. An `EvaluationError` if it raised something else, if its value is no
                plain data, if its worker died with every try, or if it ran too long.
            StudyError: No worker can be started.
        """

    @abstractmethod
    def close(self) -> None:
        """Stops the workers; running trials are abandoned."""
