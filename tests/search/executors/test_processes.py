import pytest

from search.executors.processes import ProcessesExecutor
from search.study.testing import ExecutorConformance
from spaces.errors import ConfigError


class TestProcessesExecutor(ExecutorConformance):
    @pytest.fixture
    def executor(self):
        return ProcessesExecutor(workers=2)


def test_no_workers_is_a_mistake():
    with pytest.raises(ConfigError, match="at least 1"):
        ProcessesExecutor(workers=0)
