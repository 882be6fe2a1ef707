"""What a worker process runs: it loads the runner, then does jobs until its study ends."""

import contextlib
import mmap
import os
import pickle
import signal
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

from search.executors.job import Job, work
from search.executors.processes import BROKEN
from search.trials.run_trial import described
from search.trials.trial import TrialRunner

_OUT_OF_MEMORY_SCORE = 500  # where memory runs out, the kernel ends a worker before the study
_PARENT_INTERVAL_S = 0.5


def main(pipe_number: int, runner_number: int) -> None:
    """Runs the worker.

    Args:
        pipe_number: File descriptor of its end of the pipe.
        runner_number: File descriptor of the file that holds the runner.
    """
    _leave_signals_to_the_study()
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OUT_OF_MEMORY_SCORE))
    pipe = Connection(pipe_number)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            runner = _loaded(runner_number)
        except Exception as error:
            pipe.send_bytes(BROKEN + described(error).encode())
            return
        while True:
            job: Job = pipe.recv()
            for message in work(runner, job):
                pipe.send_bytes(message)


def _loaded(number: int) -> TrialRunner:
    with mmap.mmap(number, 0, access=mmap.ACCESS_READ) as stored:
        os.close(number)
        runner: TrialRunner = pickle.loads(stored)  # noqa: S301 (the study that started us wrote it)
    return runner


def _leave_signals_to_the_study() -> None:
    """The study stops its workers. Unlike SIG_IGN, a handler is not inherited by programs that a trial starts."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: None)


def _end_with_parent(parent: int) -> None:
    """Ends this process and what it has started once the study is gone, whatever a trial is doing."""
    while os.getppid() == parent:
        time.sleep(_PARENT_INTERVAL_S)
    os.killpg(0, signal.SIGKILL)
