"""Runs trials on a Ray cluster (Ray Core): one actor per slot, which loads the runner once from the object store."""

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from search.executors.job import Job
from search.executors.pool import Worker, WorkerPool
from search.executors.ray_actor import ActorWorker, WorkerActor
from search.executors.ray_cluster.code import Code
from search.executors.ray_cluster.connecting import Connection, connect
from search.executors.ray_cluster.resources import TrialResources, nodes_of
from search.executors.ray_cluster.versions import check_nodes
from search.trials.run_trial import described
from search.trials.trial import TrialRunner
from spaces.errors import ConfigError

_NODES_INTERVAL_S = 10.0
_log = logging.getLogger(__name__)


class RayExecutor(WorkerPool):
    """Runs trials in actors of a Ray cluster.

    A worker that dies is replaced and its trial tried once more; one that exceeds its trial's time limit is replaced and its trial
    fails. The limit counts from when the trial runs: neither the start of an actor nor loading the runner counts. Where a node is
    lost, its trials are tried again on the others; nodes that join are used.

    Args:
        address: `auto`, `HOST:PORT` or `ray://HOST:PORT`; `local` starts a Ray on this machine; None takes the environment's
            RAY_ADDRESS, as in a submitted job, and is `local` without it.
        workers: Most trials at once; None takes as many as the cluster has resources for.
        cpus_per_trial: CPUs that a trial reserves; with 0, and nothing else reserved, `workers` must be given.
        gpus_per_trial: GPUs that a trial reserves; a fraction lets trials share one.
        memory_per_trial: Memory that a trial reserves, as `4 GiB`; None reserves none. Ray counts it and does not limit it.
        resources_per_trial: Custom resources that a trial reserves by name, e.g. `{bench: 1}`.
        max_retries: How often a trial is tried again because the node that it ran on was lost.
        auth_mode: Ray's `RAY_AUTH_MODE`, `disabled` or `token`; the environment's comes first. None is `token` for a cluster where there
            is a token, `disabled` elsewhere.
        trusted_modules: The config's `trusted_modules`: workers on other machines get copies of them.

    Raises:
        ConfigError: An argument is wrong.
    """

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        cpus_per_trial: float = 1.0,
        gpus_per_trial: float = 0.0,
        memory_per_trial: str | int | None = None,
        resources_per_trial: Mapping[str, Any] | None = None,
        max_retries: int = 10,
        auth_mode: str | None = None,
        trusted_modules: Sequence[str] = (),
    ) -> None:
        super().__init__(workers, most_lost_nodes=max_retries)
        if max_retries < 0:
            raise ConfigError(f"executor.max_retries must be at least 0, not {max_retries}")
        self._most_workers = workers
        self._address, self._auth_mode = address, auth_mode
        self._resources = TrialResources.read(
            cpus_per_trial, gpus_per_trial, memory_per_trial, resources_per_trial
        )
        self._trusted = tuple(trusted_modules)
        self._connection: Connection | None = None
        self._counted = 0.0  # `time.monotonic()` at which the nodes were counted
        self._actor: Any = None
        self._runner: Any = None

    @property
    def slots(self) -> int:
        """`workers`, or fewer where the living nodes have less room."""
        if self._connection is not None and time.monotonic() - self._counted > _NODES_INTERVAL_S:
            self._count(self._connection.ray)
        return super().slots

    def close(self) -> None:
        """Stops the workers at once; a Ray that was started here ends."""
        super().close()
        self._runner = self._actor = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _prepare(self, runner: TrialRunner) -> None:
        self._connection = connect(self._address, self._auth_mode, partial(Code.of, self._trusted))
        ray, nodes = self._connection.ray, self._connection.nodes
        self._n_workers = self._resources.slots(nodes, self._most_workers)
        self._counted = time.monotonic()
        if not self._connection.local and (different := check_nodes(ray, nodes)):
            _log.warning(different)
        try:
            self._runner = ray.put(ray.cloudpickle.dumps(runner))
        except Exception as error:  # a task or an evaluator of the user's may hold anything
            raise ConfigError(
                f"the study cannot be sent to a Ray worker ({described(error)}); use executor=serial"
            ) from error
        self._actor = ray.remote(max_restarts=0, **self._resources.options())(WorkerActor)

    def _spawn(self) -> Worker:
        assert self._connection is not None
        return ActorWorker(
            self._connection.ray, self._actor.remote([self._runner], self._connection.import_path())
        )

    def _wait(self, workers: Sequence[Worker], timeout_s: float | None) -> Sequence[Worker]:
        assert self._connection is not None
        waiting = {worker.next: worker for worker in workers if isinstance(worker, ActorWorker)}
        if not waiting:
            return []
        ready, _ = self._connection.ray.wait(list(waiting), num_returns=1, timeout=timeout_s)
        return [waiting[reference] for reference in ready]

    def _lost(self, worker: Worker, job: Job, error: Exception) -> None:
        assert self._connection is not None
        self._count(self._connection.ray)  # the node may be gone: no actor would start in its place
        super()._lost(worker, job, error)

    def _count(self, ray: Any) -> None:
        """Counts the slots of the nodes that live now: at least one, which waits for a node."""
        self._counted = time.monotonic()
        self._n_workers = 1
        with contextlib.suppress(ConfigError):
            self._n_workers = self._resources.slots(nodes_of(ray.nodes()), self._most_workers)
