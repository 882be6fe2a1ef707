import numpy as np
import pytest

from evaluators.task.data.npz import NpzData
from evaluators.task.tasks.classes import ClassesTask
from evaluators.task.tasks.task import Task
from evaluators.task.tasks.testing import TaskConformance
from spaces.errors import ConfigError, InputError


def file(tmp_path, y, **more):
    x = np.random.default_rng(0).standard_normal((len(y), 3)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=np.array(y), **more)
    return str(tmp_path / "data.npz")


class TestClasses(TaskConformance):
    @pytest.fixture(params=[[0, 1, 2], ["low", "mid", "top"]])
    def task(self, tmp_path, request) -> Task:
        return ClassesTask(NpzData(), root=file(tmp_path, request.param * 20))


def test_names_are_numbered_in_their_order_or_sorted(tmp_path):
    root = file(tmp_path, ["b", "a", "c"] * 4)
    assert ClassesTask(NpzData(), root=root)._examples.labels[:3].tolist() == [1, 0, 2]
    named = ClassesTask(NpzData(), root=root, classes=["c", "b", "a", "d"])
    assert named._examples.labels[:3].tolist() == [1, 2, 0]
    assert named.n_classes == 4


def test_numbers_can_be_listed(tmp_path):
    task = ClassesTask(NpzData(), root=file(tmp_path, [10, 20] * 5), classes=[10, 20])
    assert task._examples.labels[:2].tolist() == [0, 1]


def test_groups_are_not_divided(tmp_path):
    people = np.arange(60) // 6
    root = file(tmp_path, [0, 1, 2] * 20, person=people)
    task = ClassesTask(NpzData(group="person"), root=root, calibration=1, validation=2, test=3)
    sizes = {name: len(split) for name, split in vars(task.splits()).items()}
    assert sizes == {"train": 24, "calibration": 6, "validation": 12, "test": 18}


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        ([0, 1, -1], {}, r"data\.npz, example 2: the label -1 is no class"),
        ([0, 1, 0.5], {}, r"data\.npz, example 2: the label 0\.5 is no class"),
        (["a", "b", ""], {}, r"data\.npz, example 2: the class is missing"),
        (["a", "b", "x"], {"classes": ["a", "b"]}, r"example 2: Unknown class 'x' in task\.classes"),
        ([3, 3, 3], {}, "all 3 examples are of one class"),
        ([[0, 1], [1, 0]], {}, r"labels must be one class for each example"),
    ],
)
def test_wrong_labels_raise(tmp_path, labels, settings, message):
    with pytest.raises(InputError, match=message):
        ClassesTask(NpzData(), root=file(tmp_path, labels), **settings).splits()


def test_a_class_that_is_named_twice_raises():
    with pytest.raises(ConfigError, match="names a class twice"):
        ClassesTask(NpzData(), classes=["a", "a"])
