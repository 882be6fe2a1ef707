import pytest

from search.executors.base import Running
from search.executors.processes import ProcessesExecutor
from search.study.testing import AnalyticRunner, ExecutorConformance
from search.trials.trial import TrialRequest
from spaces.candidate import Candidate
from spaces.errors import ConfigError


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
    assert Running(request(2.5), began=100.0).expires() == 102.5
    assert Running(request(2.5)).expires() is None
    assert Running(request(None), began=100.0).expires() is None


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
