"""Runs trials in this process, one after the other."""

from collections import deque

from search.executors.base import Executor
from search.trials.trial import TrialRequest, TrialResult, TrialRunner


class SerialExecutor(Executor):
    """Runs trials in this process. A time limit is checked between the steps of a trial."""

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
        return self._runner.run(self._waiting.popleft())

    def close(self) -> None:
        """Drops the queued trials."""
        self._waiting.clear()
