"""Yes-or-no classes: conformance, one label and several, bad input."""

import numpy as np
import pytest

from evaluators.task.data.npz import NpzData
from evaluators.task.data.sklearn_data import SklearnData
from evaluators.task.tasks.testing import TaskConformance
from evaluators.task.tasks.yes_no import YesNoTask
from spaces.errors import InputError


class TestYesNoTask(TaskConformance):
    @pytest.fixture
    def task(self):
        return YesNoTask(SklearnData("breast_cancer"))

    def outputs(self, task, splits):
        return splits.validation.labels * 2 - 1


class TestSeveralClasses(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path):
        return YesNoTask(NpzData(), root=stored(tmp_path), metric="average_precision")

    def outputs(self, task, splits):
        return splits.validation.labels * 2 - 1


def stored(folder, **arrays):
    rng = np.random.default_rng(0)
    given = {"x": rng.normal(size=(60, 5)).astype(np.float32), "y": rng.integers(0, 2, (60, 3)), **arrays}
    np.savez(folder / "data.npz", **given)
    return str(folder / "data.npz")


def test_outputs_are_one_value_per_question_or_the_logits_of_both_answers(tmp_path):
    several = YesNoTask(NpzData(), root=stored(tmp_path))
    assert several.misfit(np.zeros((4, 3)), 4) is None
    assert "3 yes-or-no questions" in several.misfit(np.zeros((4, 2)), 4)
    one = YesNoTask(NpzData(), root=stored(tmp_path, y=np.arange(60) % 2))
    assert all(one.misfit(np.zeros(shape), 4) is None for shape in ((4,), (4, 1), (4, 2)))


def test_the_loss_follows_the_threshold():
    assert YesNoTask(SklearnData("breast_cancer")).loss == "binary"
    assert YesNoTask(SklearnData("breast_cancer"), threshold=0.5).loss == "probability"


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.r_[np.arange(59) % 2, 2], r"data\.npz, example 59: the label 2 is not 0 or 1"),
        (np.zeros(60), r"data\.npz: 0 of 60 examples are of the class; examples of both kinds are needed"),
        (np.ones((60, 2)), r"data\.npz: 60 of 60 examples are of each of the 2 classes"),
        (np.array(["a"] * 60), r"labels must be 0 or 1, \(n,\) or \(n, \.\.\.\)"),
    ],
)
def test_bad_input(tmp_path, y, message):
    with pytest.raises(InputError, match=message):
        YesNoTask(NpzData(), root=stored(tmp_path, y=y)).splits()


def test_a_class_without_examples_of_both_kinds_does_not_count(tmp_path):
    y = np.stack([np.arange(60) % 2, np.ones(60), np.arange(60) % 3 > 0, np.zeros(60)], axis=1).reshape(
        60, 2, 2
    )
    task = YesNoTask(NpzData(), root=stored(tmp_path, y=y))
    labels = task.splits().validation.labels
    assert labels.shape == (12, 4)
    assert task.misfit(np.zeros((4, 2, 2)), 4) is None
    outputs = labels.reshape(12, 2, 2) - 0.5
    auc, every = task.metric, np.ones(12)
    assert auc.pooled(auc.statistics(outputs, labels), every) == 1
    outputs[:, 0, 0] *= -1  # one of the two classes that count
    assert auc.pooled(auc.statistics(outputs, labels), every) == 0.5
