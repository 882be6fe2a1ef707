import pytest

from search.executors.serial import SerialExecutor
from search.study.testing import ExecutorConformance


class TestSerialExecutor(ExecutorConformance):
    kills = False

    @pytest.fixture
    def executor(self):
        return SerialExecutor()
