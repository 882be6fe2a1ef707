"""Runs trials in this process, one after the other."""

from collections import deque
from typing import Any, ClassVar

from search.executors.base import Executor
from search.executors.job import call
from search.trials.run_trial import run_trial
from search.trials.trial import TrialRequest, TrialResult, TrialRunner
from spaces.errors import StudyError


class SerialExecutor(Executor):
    """Runs trials in this process: for debugging, since a native crash ends the study.

    A candidate that was running when the process died, twice, is not tried again. A time limit is checked between the
    steps of a trial.
    """

    in_process: ClassVar[bool] = True

    def __init__(self) -> None:
        self._waiting: deque[TrialRequest] = deque()
        self._runner: TrialRunner | None = None

    @property
    def slots(self) -> int:
        """One."""
        return 1

    def start(self, runner: TrialRunner) -> None:
        """Keeps the runner."""
        self._runner = runner

    def submit(self, request: TrialRequest) -> None:
        """Queues a trial; `next_result` runs it."""
        self._waiting.append(request)

    def next_result(self, timeout_s: float | None = None) -> TrialResult | None:
        """Runs the oldest queued trial."""
        if self._runner is None or not self._waiting:
            return None
        return run_trial(self._runner, self._waiting.popleft())

    def call(self, method: str, *args: Any, time_limit_s: float | None = None, tries: int = 2) -> Any:
        """Calls the runner's method; there is no time limit, and no worker to die."""
        if self._runner is None:
            raise StudyError("the executor was not started")
        return call(self._runner, method, args).result()

    def close(self) -> None:
        """Drops the queued trials."""
        self._waiting.clear()
