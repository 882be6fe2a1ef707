import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# a study with two workers that compute; it prints their process ids
STUDY = """
import sys, time
from pathlib import Path
from search.executors.processes import ProcessesExecutor
from search.study.testing import AnalyticRunner
from search.trials.trial import TrialRequest
from spaces.candidate import Candidate

if __name__ == "__main__":
    log = Path(sys.argv[1])
    executor = ProcessesExecutor(workers=2)
    executor.start(AnalyticRunner(seconds=600.0, log=log))
    for number in range(2):
        executor.submit(TrialRequest(number, Candidate({"x": number, "y": 1, "z": "a"})))
    executor.next_result(timeout_s=600)
"""


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def study(tmp_path):
    """A study's process, in a process group of its own, and the ids of its workers, which compute."""
    (tmp_path / "study.py").write_text(STUDY)
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "study.py"), str(tmp_path / "log")],
        env=environment,
        start_new_session=True,
    )
    until = time.monotonic() + 60
    while time.monotonic() < until and _lines(tmp_path / "log") < 2:
        time.sleep(0.05)
    workers = [int(line.split()[0]) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(workers) == 2
    yield process, workers
    process.kill()
    process.wait()
    for worker in filter(is_running, workers):
        os.kill(worker, signal.SIGKILL)


def _lines(path):
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_that_compute_end_with_a_study_that_is_killed(study):
    process, workers = study
    process.kill()
    process.wait()
    until = time.monotonic() + 10
    while time.monotonic() < until and any(map(is_running, workers)):
        time.sleep(0.05)
    assert not any(map(is_running, workers))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_a_worker_is_left_to_the_study(study, number):
    _, workers = study
    for worker in workers:
        os.kill(worker, number)
    time.sleep(0.5)
    assert all(map(is_running, workers))
