import os
import signal
import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest

from search.executors.ray import RayExecutor
from search.study.study import run_study
from search.study.testing import (
    AnalyticRunner,
    ExecutorConformance,
    MisbehavingRunner,
    SilentObserver,
    analytic_plan,
)
from search.trials.trial import TrialRequest
from spaces.candidate import Candidate
from spaces.errors import ConfigError, StudyError

pytestmark = [
    pytest.mark.slow,
    # Ray leaves sockets and files to the garbage collector, and warns of its own future changes
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


class TestRayExecutor(ExecutorConformance):
    @pytest.fixture(scope="class", autouse=True)
    def session(self):
        """A Ray that all tests share, as in a notebook: starting one takes long."""
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        import ray

        ray.init(
            num_cpus=2,
            include_dashboard=False,
            configure_logging=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
        yield
        ray.shutdown()

    @pytest.fixture
    def executor(self):
        return RayExecutor(workers=2, max_retries=0)

    def test_causes_are_told_in_words(self, executor, tmp_path):
        executor.start(MisbehavingRunner(tmp_path))
        try:
            executor.submit(TrialRequest(0, Candidate({"x": "crash"})))
            (result,) = [executor.next_result()]
            cause = "the worker process died: it was killed, ran out of memory or crashed in native code"
            assert result.reason == f"WorkerError: 2 workers died while it ran ({cause})"
        finally:
            executor.close()

    def test_a_runner_that_no_worker_can_load_is_one_message(self, executor):
        executor.start(Unloadable())
        try:
            executor.submit(TrialRequest(0, Candidate({"x": 1})))
            with pytest.raises(StudyError, match=r"cannot load the study: ValueError: not in this process$"):
                executor.next_result()
        finally:
            executor.close()

    def test_a_runner_that_cannot_be_sent_is_one_message(self, executor):
        with pytest.raises(
            ConfigError,
            match=r"cannot be sent to a Ray worker \(TypeError: cannot pickle .*lock.*executor=serial",
        ):
            executor.start(threading.Lock())
        executor.close()

    def test_arrays_of_the_runner_may_be_written(self, executor):
        """Arrays of the object store itself are read-only."""
        executor.start(Writing(np.zeros(1_000_000)))
        try:
            assert executor.call("write") == 1.0
        finally:
            executor.close()


class Unloadable:
    """A runner whose pickle cannot be read."""

    def __reduce__(self):
        return (_refuse, ())


def _refuse():
    raise ValueError("not in this process")


@dataclass
class Writing:
    """A runner that writes into its data."""

    data: np.ndarray

    def write(self):
        self.data[0] += 1
        return float(self.data[0])


def test_more_cpus_than_the_cluster_has_is_an_error():
    before = signal.getsignal(signal.SIGTERM)
    executor = RayExecutor(address="local", cpus_per_trial=10_000)
    try:
        with pytest.raises(
            ConfigError, match=r"no node .* could ever run a trial.*The cluster has 1 node.*CPU"
        ):
            executor.start(None)
        assert signal.getsignal(signal.SIGTERM) is before  # `ray.init` sets one of its own
    finally:
        executor.close()


def test_a_reservation_that_no_node_has_is_an_error_on_a_cluster(ray_cluster):
    cluster = ray_cluster()
    began = time.monotonic()
    executor = RayExecutor(address=cluster.address, resources_per_trial={"bench": 1})
    with pytest.raises(
        ConfigError, match=r"resources_per_trial\.bench=1: no node .* The cluster has 1 node: .*: 2 CPUs"
    ):
        executor.start(None)
    executor.close()
    assert time.monotonic() - began < 30


def start_as_client(executor, runner, tries=3):
    """Starts it; Ray gives up on its server for a client after some seconds, which a busy machine may need."""
    for left in reversed(range(tries)):
        try:
            executor.start(runner)
        except ConfigError as error:
            if "Starting Ray client server failed" not in str(error) or not left:
                raise
        else:
            return


def test_a_client_from_another_machine_runs_trials(ray_cluster):
    cluster = ray_cluster()
    executor = RayExecutor(address=f"ray://127.0.0.1:{cluster.client_port}")
    start_as_client(executor, AnalyticRunner(die_at=3))
    try:
        for number, x in enumerate((1, 3, 2)):
            executor.submit(TrialRequest(number, Candidate({"x": x, "y": 1, "z": "a"})))
        results = {r.id: r for r in iter(executor.next_result, None)}
        assert [results[number].outcome for number in range(3)] == ["measured", "failed", "measured"]
        assert "2 workers died" in results[1].reason
    finally:
        executor.close()


@pytest.mark.parametrize("auth_mode", ["disabled", "token"])
def test_a_wrong_token_is_an_error_within_half_a_minute(ray_cluster, monkeypatch, auth_mode):
    cluster = ray_cluster(token=True)
    monkeypatch.setenv("RAY_AUTH_MODE", auth_mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    for address in (cluster.address, f"ray://127.0.0.1:{cluster.client_port}"):
        began = time.monotonic()
        with pytest.raises(ConfigError, match="does not accept the token"):
            RayExecutor(address=address).start(None)
        assert time.monotonic() - began < 30


def test_a_node_that_is_killed_costs_no_trial(ray_cluster, tmp_path):
    """Its trial runs again on the node that is left; each is recorded once."""
    cluster = ray_cluster(cpus=0)
    nodes = [cluster.start(f"--address={cluster.address}", "--num-cpus=1") for _ in range(2)]
    executor = RayExecutor(address=cluster.address)
    slots = []

    def on_trial(record):
        slots.append(executor.slots)
        if len(slots) == 3:
            time.sleep(0.3)  # both nodes run a trial then
            cluster.kill(nodes[1])

    plan = analytic_plan(
        tmp_path / "study",
        n_trials=10,
        executor=executor,
        runner=AnalyticRunner(log=tmp_path / "runs", seconds=1.0),
    )
    results = run_study(plan, SilentObserver(on_trial)).results
    assert sorted(t.number for t in results.trials) == list(range(10))
    assert not [t for t in results.trials if t.state == "failed"]
    assert slots[0] == 2
    assert slots[-1] == 1  # the last one is that of the lost node: it is known by then


def test_a_lost_node_is_not_blamed_on_its_trial(ray_cluster, tmp_path):
    """A trial whose worker died twice fails; one whose node was lost is tried again as often as allowed."""
    cluster = ray_cluster(cpus=0)
    executor = RayExecutor(address=cluster.address, max_retries=0)
    node = cluster.start(f"--address={cluster.address}", "--num-cpus=1")
    executor.start(AnalyticRunner(log=tmp_path / "runs", seconds=600.0))
    try:
        executor.submit(TrialRequest(0, Candidate({"x": 1, "y": 1, "z": "a"})))
        while not (tmp_path / "runs").exists():
            assert executor.next_result(0.2) is None
        cluster.kill(node)
        result = executor.next_result(60.0)
        assert result.reason.startswith(
            "WorkerError: its machine was lost while it ran (The actor died because its node"
        )
    finally:
        executor.close()
