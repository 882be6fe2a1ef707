import pytest

from evaluators.task.tasks.classification.digits import DigitsTask
from evaluators.task.tasks.testing import TaskConformance
from spaces.errors import ConfigError


class TestDigits(TaskConformance):
    @pytest.fixture
    def task(self):
        return DigitsTask()


def test_sizes_and_range():
    splits = DigitsTask(calibration=10, validation=20, test=30).splits()
    assert [len(s) for s in (splits.train, splits.calibration, splits.validation, splits.test)] == [
        1737,
        10,
        20,
        30,
    ]
    inputs, _ = next(splits.train.batches(1737))
    assert (inputs.min(), inputs.max()) == (0.0, 1.0)


def test_more_examples_than_there_are_raise():
    with pytest.raises(
        ConfigError, match=r"task\.test=1700.*asks for 2200 examples, but there are only 1797"
    ):
        DigitsTask(test=1700).splits()
