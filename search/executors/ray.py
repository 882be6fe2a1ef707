"""Runs trials on a Ray cluster (Ray Core), asynchronously.

The runner, with model and calibration data, is put into the object store once; workers read it from there.
"""

import os
import time
from collections.abc import Iterator
from typing import Any

from search.executors.base import Executor, Running, failure, late, pause_s
from search.trials.trial import TrialRequest, TrialResult, TrialRunner
from spaces.errors import ConfigError


class RayExecutor(Executor):
    """Runs trials as Ray tasks. A trial's time limit counts from when its task runs, not from when it is queued.

    Args:
        address: The cluster's address, `auto`, or None to start a local Ray.
        workers: Most trials at once; None takes the cluster's number of CPUs.
        cpus_per_trial: CPUs that a trial reserves.
        max_retries: How often a trial is started again after its worker or node was lost.
        auth_mode: Ray's `RAY_AUTH_MODE`: `disabled` on loopback, `token` on a real cluster.
    """

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        cpus_per_trial: float = 1.0,
        max_retries: int = 2,
        auth_mode: str = "disabled",
    ) -> None:
        if workers is not None and workers < 1:
            raise ConfigError(f"executor.workers must be at least 1, not {workers}")
        self._address, self._workers = address, workers
        self._cpus, self._max_retries, self._auth_mode = cpus_per_trial, max_retries, auth_mode
        self._running: dict[Any, Running] = {}  # by the generator of the task's messages
        self._runner: Any = None
        self._task: Any = None
        self._ours = False

    @property
    def slots(self) -> int:
        """`workers`, or as many trials as the cluster has CPUs for."""
        return self._workers or 1

    def start(self, runner: TrialRunner) -> None:
        """Connects to the cluster, or starts a local one, and ships the runner."""
        ray = self._connect()
        available = float(ray.cluster_resources().get("CPU", 0))
        if available < self._cpus:
            raise ConfigError(
                f"executor.cpus_per_trial={self._cpus:g}, but the Ray cluster has only {available:g} CPUs: "
                "no trial could ever start"
            )
        self._workers = self._workers or max(1, int(available // self._cpus))
        self._runner = ray.put(runner)
        options = {"num_cpus": self._cpus, "max_retries": self._max_retries, "num_returns": "streaming"}
        self._task = ray.remote(**options)(_run)

    def submit(self, request: TrialRequest) -> None:
        """Starts a task."""
        self._running[self._task.remote(self._runner, request)] = Running(request)

    def next_result(self, timeout_s: float | None = None) -> TrialResult | None:
        """Waits for the next task; a lost worker, after its retries, yields a failed trial."""
        import ray

        until = None if timeout_s is None else time.monotonic() + timeout_s
        while self._running:
            ready, _ = ray.wait(
                list(self._running), num_returns=1, timeout=pause_s(until, self._running.values())
            )
            if ready:
                result = self._collect(ready[0])
                if result is not None:
                    return result
                continue
            expired = next((task for task, running in self._running.items() if running.is_late()), None)
            if expired is not None:
                return self._stop(expired)
            if until is not None and time.monotonic() >= until:
                return None
        return None

    def close(self) -> None:
        """Cancels running tasks; a local Ray that was started here is stopped."""
        import ray

        for task in self._running:
            ray.cancel(task, force=True)
        self._running.clear()
        self._runner = None
        if self._ours and ray.is_initialized():
            ray.shutdown()

    def _connect(self) -> Any:
        # Ray reads this when it is imported
        os.environ.setdefault("RAY_AUTH_MODE", self._auth_mode)
        # without it Ray warns of a future change of its handling of GPUs on machines that have none
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError as error:
            raise ConfigError("executor=ray needs Ray: pip install 'paredown[ray]'") from error
        if ray.is_initialized():
            return ray
        self._ours = True
        try:
            if self._address is None:
                ray.init(
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                    configure_logging=False,
                )
            else:
                ray.init(address=self._address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"executor.address={self._address!r}: no Ray cluster can be reached: {error}"
            ) from error
        return ray

    def _collect(self, task: Any) -> TrialResult | None:
        """Takes a task's next message: that its trial runs now (returns None), or the trial's result."""
        import ray

        try:
            message = ray.get(next(task))
        except ray.exceptions.RayError as error:
            first_line = str(error).strip().splitlines()[0]
            return failure(self._running.pop(task), f"WorkerError: {first_line}")
        if message is None:
            self._running[task].began = time.monotonic()
            return None
        del self._running[task]
        assert isinstance(message, TrialResult)
        return message

    def _stop(self, task: Any) -> TrialResult:
        import ray

        ray.cancel(task, force=True)
        return late(self._running.pop(task))


def _run(runner: TrialRunner, request: TrialRequest) -> Iterator[TrialResult | None]:
    yield None  # the trial runs now
    yield runner.run(request)
