"""Runs trials in worker processes of this machine."""

import contextlib
import multiprocessing
import pickle
import signal
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from search.executors.base import Executor, Running, failure, late, pause_s
from search.record.environment import usable_cores
from search.trials.trial import TrialRequest, TrialResult, TrialRunner
from spaces.errors import ConfigError


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    running: Running | None = None


class ProcessesExecutor(Executor):
    """Runs trials in worker processes, which each load the runner once.

    A worker that dies or exceeds its trial's time limit is replaced; its trial fails with the reason. The
    limit counts from when the worker reports that the trial runs: neither the start of its process nor
    loading the runner counts.

    Args:
        workers: Number of processes; None takes the number of usable cores.
    """

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise ConfigError(f"executor.workers must be at least 1, not {workers}")
        self._n_workers = workers or usable_cores()
        self._workers: list[_Worker] = []
        self._waiting: deque[TrialRequest] = deque()
        self._runner = b""

    @property
    def slots(self) -> int:
        """The number of workers."""
        return self._n_workers

    def start(self, runner: TrialRunner) -> None:
        """Starts the workers."""
        self._runner = pickle.dumps(runner)
        self._workers = [self._spawn() for _ in range(self._n_workers)]

    def submit(self, request: TrialRequest) -> None:
        """Gives the trial to an idle worker, or queues it."""
        self._waiting.append(request)
        self._hand_out()

    def next_result(self, timeout_s: float | None = None) -> TrialResult | None:
        """Returns the next result; a dead or late worker yields a failed one."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while busy := {w.pipe: w for w in self._workers if w.running is not None}:
            pause = pause_s(until, (w.running for w in busy.values() if w.running is not None))
            for pipe in wait(list(busy), pause):
                assert isinstance(pipe, Connection)
                result = self._collect(busy[pipe])
                if result is not None:
                    return result
            expired = next((w for w in busy.values() if w.running is not None and w.running.is_late()), None)
            if expired is not None:
                return late(self._replace(expired))
            if until is not None and time.monotonic() >= until:
                return None
        return None

    def close(self) -> None:
        """Stops the workers at once."""
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()
        self._workers.clear()
        self._waiting.clear()

    def _hand_out(self) -> None:
        for worker in self._workers:
            if worker.running is None and self._waiting:
                worker.running = Running(self._waiting.popleft())
                # a worker that has died is detected in `next_result`
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    worker.pipe.send(worker.running.request)

    def _collect(self, worker: _Worker) -> TrialResult | None:
        """Receives a worker's message: that its trial runs now (returns None), or the trial's result."""
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            reason = f"WorkerError: the worker process died ({_exit_text(worker.process.exitcode)})"
            return failure(self._replace(worker), reason)
        if message is None:
            assert worker.running is not None
            worker.running.began = time.monotonic()
            return None
        worker.running = None
        self._hand_out()
        assert isinstance(message, TrialResult)
        return message

    def _replace(self, worker: _Worker) -> Running:
        """Replaces a worker by a new one; returns the trial that it was running."""
        assert worker.running is not None
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        self._workers[self._workers.index(worker)] = self._spawn()
        self._hand_out()
        return worker.running

    def _spawn(self) -> _Worker:
        # spawn, not fork: XGBoost, onnxruntime and torch hold threads that a fork would lose
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self._runner), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)


def _work(pipe: Connection, runner_bytes: bytes) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the study; it stops the workers
    runner: TrialRunner = pickle.loads(runner_bytes)  # noqa: S301 (our own parent wrote it)
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        pipe.send(None)  # the trial runs now
        pipe.send(runner.run(request))


def _exit_text(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit status {code}"
