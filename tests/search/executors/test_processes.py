import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from search.executors.job import Job
from search.executors.processes import ProcessesExecutor
from search.study.testing import AnalyticRunner, ExecutorConformance
from search.trials.trial import TrialRequest, TrialResult
from spaces.candidate import Candidate
from spaces.errors import ConfigError, StudyError


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Workers import the runners of this file, however the tests were started."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))


class TestProcessesExecutor(ExecutorConformance):
    @pytest.fixture
    def executor(self):
        return ProcessesExecutor(workers=2)


def test_zero_workers_is_an_error():
    with pytest.raises(ConfigError, match="at least 1"):
        ProcessesExecutor(workers=0)


def request(time_limit_s):
    return TrialRequest(0, Candidate({"x": 1, "y": 1, "z": "a"}), time_limit_s=time_limit_s)


def test_a_trial_expires_when_it_has_run_for_its_limit():
    assert began(request(2.5), 100.0).expires() == 102.5
    assert began(request(2.5), None).expires() is None
    assert began(request(None), 100.0).expires() is None


def began(trial, at):
    job = Job.trial(trial)
    job.began = at
    return job


def test_a_late_trial_is_stopped_when_its_limit_is_over():
    """The trial is stopped long before it would end."""
    executor = ProcessesExecutor(workers=1)
    executor.start(AnalyticRunner(seconds=60.0))
    try:
        executor.submit(request(0.5))
        result = executor.next_result()
        assert "TimeLimitError" in result.reason
        assert 0.4 <= result.wall_s < 30  # the trial would take 60
    finally:
        executor.close()


class Growing:
    """Trials that take memory, in MiB, and keep it where `leaks`."""

    def __init__(self, leaks=False):
        self.leaks, self.kept = leaks, []

    def key(self, candidate):
        return candidate.digest

    def run(self, request):
        taken = bytearray(2**20 * request.candidate["mib"])
        taken[:: 2**12] = b"1" * len(taken[:: 2**12])
        if self.leaks:
            self.kept.append(taken)
        else:
            time.sleep(2)
        return TrialResult(request.id, request.candidate, "measured", details={"pid": os.getpid()})


def results_of(runner, sizes_mib, **settings):
    executor = ProcessesExecutor(workers=1, **settings)
    executor.start(runner)
    try:
        for number, mib in enumerate(sizes_mib):
            executor.submit(TrialRequest(number, Candidate({"mib": mib})))
        return [executor.next_result() for _ in sizes_mib]
    finally:
        executor.close()


def test_a_trial_that_takes_too_much_memory_is_stopped():
    large, small = results_of(Growing(), [3000, 1], memory="2 GiB")
    assert large.outcome == "failed"
    assert "executor.memory of 2048 MiB" in large.reason
    assert small.outcome == "measured"


def test_a_leaking_worker_is_replaced_between_trials():
    results = results_of(Growing(leaks=True), [900, 900, 900, 900], memory="2 GiB")
    assert [r.outcome for r in results] == ["measured"] * 4
    assert len({r.details["pid"] for r in results}) > 1


def test_memory_without_a_unit_that_is_known_is_an_error():
    with pytest.raises(ConfigError, match=r"executor\.memory"):
        ProcessesExecutor(memory="much")


def test_a_study_that_cannot_be_sent_is_an_error():
    runner = AnalyticRunner(log=lambda: None)
    executor = ProcessesExecutor(workers=1)
    try:
        with pytest.raises(ConfigError, match="executor=serial"):
            executor.start(runner)
    finally:
        executor.close()


class Unloadable(AnalyticRunner):
    """A runner that cannot be loaded in a worker."""

    def __setstate__(self, state):
        raise OSError("the data are gone")


def test_a_runner_that_cannot_be_loaded_ends_the_study_with_the_cause():
    with pytest.raises(StudyError, match="OSError: the data are gone"):
        results_of(Unloadable(), [1])


class Deadly(AnalyticRunner):
    """A runner whose loading kills the worker."""

    def __setstate__(self, state):
        os._exit(3)


def test_workers_that_never_begin_end_the_study():
    with pytest.raises(StudyError, match="before they run anything: exit status 3"):
        results_of(Deadly(), [1])


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
def test_workers_and_what_they_started_end_with_the_study(tmp_path):
    """However the study ends: here it is killed while a trial computes, which has started a program."""
    script = tmp_path / "study.py"
    script.write_text(
        "import sys\n"
        f"sys.path[:0] = {[str(Path(__file__).parents[3]), str(Path(__file__).parent)]!r}\n"
        "from test_processes import Starting, request\n"
        "from search.executors.processes import ProcessesExecutor\n"
        "executor = ProcessesExecutor(workers=1)\n"  # without a guard of __main__: the script runs once
        f"executor.start(Starting({str(tmp_path)!r}))\n"
        "executor.submit(request(None))\n"
        "executor.next_result()\n"
    )
    study = subprocess.Popen([sys.executable, str(script)])
    pids = tmp_path / "pids"
    try:
        wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
        running = [psutil.Process(int(pid)) for pid in pids.read_text().split()]
    finally:
        study.kill()
        study.wait()
    _, alive = psutil.wait_procs(running, timeout=20)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


class Starting:
    """A trial that starts a program and computes without an end."""

    def __init__(self, folder):
        self.folder = folder

    def key(self, candidate):
        return candidate.digest

    def run(self, request):
        child = subprocess.Popen(["sleep", "600"])
        Path(self.folder, "new").write_text(f"{os.getpid()} {child.pid}")
        Path(self.folder, "new").rename(Path(self.folder, "pids"))
        while True:
            pass


def wait_until(holds, timeout_s=60):
    until = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)
