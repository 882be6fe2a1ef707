import pytest

from search.executors.serial import SerialExecutor
from search.testing import ExecutorConformance


class TestSerialExecutor(ExecutorConformance):
    kills = False

    @pytest.fixture
    def executor(self):
        return SerialExecutor()
