"""Runs trials in worker processes of this machine."""

import atexit
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe, wait
from typing import IO

import psutil

from search.executors.job import Job
from search.executors.pool import StartFailedError, Worker, WorkerDiedError, WorkerPool
from search.record.environment import usable_cores
from search.trials.run_trial import described
from search.trials.trial import TrialRunner
from spaces.errors import ConfigError
from spaces.units import parse_bytes

BROKEN = b"broken:"
"""Begins the message of a worker that cannot load the runner."""


class ProcessesExecutor(WorkerPool):
    """Runs trials in worker processes, which each load the runner once.

    A worker that dies is replaced and its trial tried once more; one that exceeds its trial's time limit is replaced
    and its trial fails. The limit counts from when the worker reports that the trial runs: neither the start of its
    process nor loading the runner counts. Workers end with the study, however it ends.

    Args:
        workers: Number of processes; None takes the number of usable cores.
        memory: Most memory of a worker, as `2 GiB`: a worker that uses more is stopped, like one that dies; an idle one
            that has grown beyond it is replaced. None for no limit.
    """

    def __init__(self, workers: int | None = None, memory: str | int | None = None) -> None:
        limit = None if memory is None else parse_bytes(memory, "executor.memory")
        super().__init__(usable_cores() if workers is None else workers, limit)
        self._runner: IO[bytes] | None = None

    def close(self) -> None:
        """Stops the workers at once."""
        super().close()
        if self._runner is not None:
            self._runner.close()
        atexit.unregister(self.close)

    def _prepare(self, runner: TrialRunner) -> None:
        if os.name != "posix":
            raise ConfigError("worker processes need Linux, macOS or WSL; use executor=serial")
        # a file without a name, which every worker maps: it may hold a large data set, and ends with the study
        self._runner = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `close`)
        atexit.register(self.close)
        try:
            pickle.dump(runner, self._runner)
            self._runner.flush()
        except (
            Exception
        ) as error:  # a task or an evaluator of the user's may hold anything; the disk may be full
            raise ConfigError(
                f"the study cannot be sent to a worker process ({described(error)}); use executor=serial"
            ) from error

    def _spawn(self) -> Worker:
        assert self._runner is not None
        return _ProcessWorker(self._runner.fileno())

    def _wait(self, workers: Sequence[Worker], timeout_s: float | None) -> Sequence[Worker]:
        by_pipe = {worker.pipe: worker for worker in workers if isinstance(worker, _ProcessWorker)}
        return [by_pipe[pipe] for pipe in wait(list(by_pipe), timeout_s) if isinstance(pipe, Connection)]


class _ProcessWorker(Worker):
    """A process with a pipe.

    It is started without `multiprocessing`, which would run the user's script once more in each worker.
    """

    def __init__(self, runner: int) -> None:
        self.pipe, theirs = Pipe()
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from search.executors.process_main import main; "
            f"main({theirs.fileno()}, {runner})"
        )
        # a group of its own, so that signals to the study's group do not reach it, and all that it starts ends with it
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno(), runner],
            stdin=subprocess.DEVNULL,
            process_group=0,
        )
        theirs.close()

    def send(self, job: Job) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(job)

    def receive(self) -> bytes | None:
        try:
            message = self.pipe.recv_bytes()
        except (EOFError, OSError) as error:
            raise WorkerDiedError(_exit_text(self._process.wait())) from error
        if message.startswith(BROKEN):
            raise StartFailedError(message.removeprefix(BROKEN).decode())
        return message

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self.pipe.close()

    def memory_bytes(self) -> int:
        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return 0


def _exit_text(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
