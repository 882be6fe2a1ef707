import numpy as np
import pytest

from evaluators.task.data.npz import NpzData
from evaluators.task.data.sequences.digit_rows import DigitRowsData
from evaluators.task.tasks.sequences.step_classes import StepClassesTask
from evaluators.task.tasks.testing import TaskConformance
from spaces.errors import ConfigError, InputError


class TestStepClasses(TaskConformance):
    @pytest.fixture
    def task(self):
        return StepClassesTask(DigitRowsData("columns", rows=4))

    def outputs(self, task, splits):
        return np.eye(11, dtype=np.float32)[np.maximum(splits.validation.labels, 0)]


def task_of(path, labels, **settings):
    np.savez(path, x=np.zeros((len(labels), 4, 2)), y=np.asarray(labels))
    return StepClassesTask(NpzData(), root=str(path), calibration=1, validation=2, test=1, **settings)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (np.zeros(6, int), r"labels must be whole numbers \(n, steps\)"),
        (np.zeros((6, 4)), "not float64"),
        (
            [[0, 1, 2, -1]] * 5 + [[0, 1, -2, 0]],
            r"example 5: the class -2 of step 2 is neither -1 nor in 0\.\.2",
        ),
        ([[0, 1, 2, -1]] * 5 + [[-1] * 4], r"example 5: no step has a label"),
    ],
)
def test_wrong_labels_raise(labels, match, tmp_path):
    with pytest.raises(InputError, match=match):
        task_of(tmp_path / "a.npz", labels).splits()


def test_classes_beyond_the_declared_number_raise(tmp_path):
    with pytest.raises(InputError, match=r"example 0: the class 2 of step 2 is neither -1 nor in 0\.\.1"):
        task_of(tmp_path / "a.npz", [[0, 1, 2, -1]] * 6, n_classes=2).splits()
    with pytest.raises(ConfigError, match=r"task\.n_classes"):
        StepClassesTask(NpzData(), n_classes=1)


def test_outputs_of_unequal_length_are_refused(tmp_path):
    task = task_of(tmp_path / "a.npz", [[0, 1, 2, -1]] * 6)
    assert task.misfit(np.zeros((6, 4, 3)), 6) is None
    assert task.misfit(np.zeros((6, 4, 5)), 6) is None
    for shape in ((6, 5, 3), (6, 4, 2), (6, 3), (4, 6, 3)):
        assert "the labels need (6, 4, 3)" in task.misfit(np.zeros(shape), 6)
