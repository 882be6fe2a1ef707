import time
from types import SimpleNamespace

import pytest

from search.executors.processes import ProcessesExecutor, _Worker
from search.study.testing import AnalyticRunner, ExecutorConformance
from search.trials.trial import TrialRequest
from spaces.candidate import Candidate
from spaces.errors import ConfigError


class TestProcessesExecutor(ExecutorConformance):
    @pytest.fixture
    def executor(self):
        return ProcessesExecutor(workers=2)


def test_no_workers_is_a_mistake():
    with pytest.raises(ConfigError, match="at least 1"):
        ProcessesExecutor(workers=0)


def request(time_limit_s):
    return TrialRequest(0, Candidate({"x": 1, "y": 1, "z": "a"}), time_limit_s=time_limit_s)


def test_a_worker_expires_when_its_trial_has_had_its_limit():
    worker = _Worker(SimpleNamespace(), SimpleNamespace(), request(2.5), began=100.0)
    assert worker.expires() == 102.5
    worker.request = request(None)
    assert worker.expires() is None
    worker.request = None
    assert worker.expires() is None


def test_a_late_trial_is_stopped_when_its_limit_is_over():
    """Half a second late at most two seconds, on the busiest machine: ten limits would be five."""
    executor = ProcessesExecutor(workers=1)
    executor.start(AnalyticRunner(seconds=60.0))
    try:
        executor.submit(request(0.5))
        began = time.monotonic()
        result = executor.next_result()
        assert "TimeLimitError" in result.reason
        assert 0.4 <= result.wall_s < 2.5
        assert time.monotonic() - began < 4.5
    finally:
        executor.close()
