"""A pool of workers: what executors with workers of their own have in common.

::

    queue ──> idle worker ──> began ──> answer ──> result
                 │               │
                 │               └─ over its time limit, or the worker over its memory: the trial fails, the worker is replaced
                 └─ died: the job is given to another worker once; if that dies, too, it fails
"""

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any

from search.executors.base import Executor
from search.executors.job import BEGAN, Answer, Job, answer_of, result_of
from search.trials.trial import TrialRequest, TrialResult, TrialRunner
from spaces.errors import ConfigError, EvaluationError, StudyError

_MOST_START_FAILURES = 3  # in a row
_MEMORY_INTERVAL_S = 0.25


class WorkerDiedError(Exception):
    """A worker ended without an answer; the text says how."""


class NodeLostError(WorkerDiedError):
    """The whole machine of a worker is gone, which is not blamed on its job."""


class StartFailedError(Exception):
    """A worker could not load the runner; the text says why."""


class Worker(ABC):
    """A worker, which does one job at a time.

    Attributes:
        job: What it does; None while it is idle.
        has_begun: Whether it has begun a job since it was started: it has loaded the runner.
    """

    job: Job | None = None
    has_begun: bool = False

    @abstractmethod
    def send(self, job: Job) -> None:
        """Gives it a job. A worker that is dead is detected by `receive`."""

    @abstractmethod
    def receive(self) -> bytes | None:
        """Returns its next message, `BEGAN` or an answer; None if the message says nothing of a job.

        Raises:
            WorkerDiedError: It died.
            StartFailedError: It could not load the runner.
        """

    @abstractmethod
    def kill(self) -> None:
        """Ends it at once, with all that it has started."""

    def memory_bytes(self) -> int:
        """Returns the memory that it uses; 0 where this is not known."""
        return 0


class WorkerPool(Executor):
    """Gives trials and calls to workers, and replaces workers that die, run too long or grow too large.

    Args:
        workers: Number of workers; None lets the subclass decide when it starts.
        memory_bytes: Most memory of a worker; None for no limit.
        most_lost_nodes: How often a job is tried again because the machine that it ran on was lost.
    """

    def __init__(
        self, workers: int | None, memory_bytes: int | None = None, most_lost_nodes: int = 10
    ) -> None:
        if workers is not None and workers < 1:
            raise ConfigError(f"executor.workers must be at least 1, not {workers}")
        self._n_workers, self._memory_bytes, self._most_lost_nodes = workers, memory_bytes, most_lost_nodes
        self._workers: list[Worker] = []
        self._queue: deque[Job] = deque()
        self._results: deque[TrialResult] = deque()
        self._start_failures = 0
        self._is_open = False

    # -- of a subclass ---------------------------------------------------------------------------------------

    @abstractmethod
    def _prepare(self, runner: TrialRunner) -> None:
        """Makes the runner available to workers, and sets `_n_workers` if it is None.

        Raises:
            ConfigError: The executor cannot work as configured.
        """

    @abstractmethod
    def _spawn(self) -> Worker:
        """Starts a worker; returns at once."""

    @abstractmethod
    def _wait(self, workers: Sequence[Worker], timeout_s: float | None) -> Sequence[Worker]:
        """Waits until one of the workers has a message; returns those that have, none if the time is over."""

    # -- the executor ----------------------------------------------------------------------------------------

    @property
    def slots(self) -> int:
        """The number of workers."""
        return self._n_workers or 1

    def start(self, runner: TrialRunner) -> None:
        """Makes the runner available to workers, which start with the first jobs."""
        self._prepare(runner)
        self._is_open = True

    def submit(self, request: TrialRequest) -> None:
        """Gives the trial to an idle worker, or queues it."""
        self._queue.append(Job.trial(request))
        self._hand_out()

    def next_result(self, timeout_s: float | None = None) -> TrialResult | None:
        """Returns the next result; see the head of this module for workers that do not answer."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._results and any(w.job for w in self._workers):
            if not self._advance(until):
                break
        return self._results.popleft() if self._results else None

    def call(self, method: str, *args: Any, time_limit_s: float | None = None, tries: int = 2) -> Any:
        """Calls a method of the runner in the first worker that is idle, before trials that are queued."""
        if not self._is_open:
            raise EvaluationError(f"{method} needs a worker, but the executor is closed")
        job = Job(method, args, time_limit_s, tries)
        self._queue.appendleft(job)
        self._hand_out()
        while job.answer is None:
            self._advance(None)
        return job.answer.result()

    def close(self) -> None:
        """Stops the workers at once."""
        self._is_open = False
        for worker in self._workers:
            worker.kill()
        self._workers.clear()
        self._queue.clear()

    # -- workers ---------------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        while self._queue and (worker := self._idle()) is not None:
            worker.job = self._queue.popleft()
            worker.job.began = None
            worker.send(worker.job)

    def _idle(self) -> Worker | None:
        """Returns an idle worker, or a new one if there may be more; None if all are busy."""
        idle = next((worker for worker in self._workers if worker.job is None), None)
        if idle is None and len(self._workers) < self.slots:
            idle = self._spawn()
            self._workers.append(idle)
        return idle

    def _advance(self, until: float | None) -> bool:
        """Waits for a message, a time limit or `until`, and acts on it; returns whether `until` is not over."""
        busy = [worker for worker in self._workers if worker.job is not None]
        for worker in self._wait(busy, self._pause_s(busy, until)):
            self._take(worker)
        for worker in busy:
            if worker.job is not None and worker in self._workers:
                self._check(worker, worker.job)
        return until is None or time.monotonic() < until

    def _pause_s(self, busy: Sequence[Worker], until: float | None) -> float | None:
        """Returns the seconds to wait for messages; None without a limit."""
        limits = [until, *(worker.job.expires() for worker in busy if worker.job is not None)]
        if self._memory_bytes is not None:
            limits.append(time.monotonic() + _MEMORY_INTERVAL_S)
        known = [limit for limit in limits if limit is not None]
        return max(0.0, min(known) - time.monotonic()) if known else None

    def _take(self, worker: Worker) -> None:
        """Takes a worker's message."""
        assert worker.job is not None
        try:
            message = worker.receive()
        except NodeLostError as error:
            self._lost(worker, worker.job, error)
            return
        except WorkerDiedError as error:
            self._died(worker, str(error))
            return
        except StartFailedError as error:
            raise StudyError(f"a worker of the executor cannot load the study: {error}") from error
        if message == BEGAN:
            worker.job.began, worker.has_begun, self._start_failures = time.monotonic(), True, 0
        elif message is not None:
            job, worker.job = worker.job, None
            self._answered(job, answer_of(message))
            if self._is_too_large(worker):
                self._replace(worker)
            self._hand_out()

    def _check(self, worker: Worker, job: Job) -> None:
        """Stops a worker whose job runs too long, or which uses too much memory."""
        if job.is_late():
            limit = f"study.trial_time_limit of {job.time_limit_s:g} s"
            self._fail(job, "TimeLimitError", f"it ran longer than {limit} and was stopped")
            self._replace(worker)
        elif self._is_too_large(worker):
            assert self._memory_bytes is not None
            limit = f"executor.memory of {self._memory_bytes / 2**20:.0f} MiB"
            self._died(worker, f"it used more than {limit} and was stopped")

    def _died(self, worker: Worker, how: str) -> None:
        """Replaces a dead worker; its job is tried once more, since another process may have been the cause."""
        job = worker.job
        assert job is not None
        if worker.has_begun:  # even if its report that this job runs was lost with it
            job.deaths += 1
        else:
            self._start_failures += 1
        if self._start_failures >= _MOST_START_FAILURES:
            raise StudyError(f"the workers of the executor end before they run anything: {how}")
        if job.deaths >= job.tries:
            self._fail(job, "WorkerError", f"{_times(job.deaths)} while it ran ({how})")
        else:
            self._queue.appendleft(job)
        self._replace(worker)

    def _lost(self, worker: Worker, job: Job, error: Exception) -> None:
        """Replaces a worker whose machine is gone; its job is tried again."""
        job.lost_nodes += 1
        if job.lost_nodes > self._most_lost_nodes:
            lost = "its machine was" if job.lost_nodes == 1 else f"{job.lost_nodes} machines were"
            self._fail(job, "WorkerError", f"{lost} lost while it ran ({error})")
        else:
            self._queue.appendleft(job)
        self._replace(worker)

    def _replace(self, worker: Worker) -> None:
        """Ends a worker; another one starts with the next job."""
        worker.kill()
        self._workers.remove(worker)
        self._hand_out()

    def _is_too_large(self, worker: Worker) -> bool:
        return self._memory_bytes is not None and worker.memory_bytes() > self._memory_bytes

    def _answered(self, job: Job, answer: Answer) -> None:
        if job.request is None:
            job.answer = answer
        else:
            self._results.append(result_of(job, answer))

    def _fail(self, job: Job, kind: str, text: str) -> None:
        if job.request is not None:
            self._results.append(job.failed(f"{kind}: {text}"))
        else:
            job.answer = Answer(error=EvaluationError.__name__, text=f"{job.method}: {text}")


def _times(deaths: int) -> str:
    return "the worker died" if deaths == 1 else f"{deaths} workers died"
