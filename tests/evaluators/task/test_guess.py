"""Whether a network tells more of the labels than a guess."""

import numpy as np
import pytest

from evaluators.task.data.npz import NpzData
from evaluators.task.guess import GUESSED, guess_note
from evaluators.task.metrics.classes.macro_f1 import MacroF1
from evaluators.task.tasks.classes import ClassesTask
from evaluators.task.tasks.regression import RegressionTask

LABELS = np.array([0, 0, 0, 1, 1, 2])
CLASSES = ClassesTask(NpzData(), root="none", n_classes=5)


def scores(*classes):
    return np.eye(5, dtype=np.float32)[list(classes)]


def test_a_network_that_is_right_less_often_than_the_most_frequent_class():
    note = guess_note(CLASSES, scores(4, 4, 0, 1, 4, 4), LABELS)
    assert note.startswith(
        f"the float model's top1 on validation, 33.33 %, is {GUESSED} (50 %): are the labels"
    )


@pytest.mark.parametrize(
    ("classes", "is_told"),
    [((0, 0, 0, 1, 0, 0), False), ((0, 0, 0, 0, 0, 0), True), ((1, 1, 1, 2, 2, 0), True)],
)
def test_what_is_as_good_is_no_better(classes, is_told):
    assert (guess_note(CLASSES, scores(*classes), LABELS) is not None) == is_told


def test_other_metrics_of_classes_and_examples_without_a_label():
    task = ClassesTask(NpzData(), root="none", n_classes=5, metric=MacroF1())
    assert guess_note(task, scores(0, 0, 0, 1, 1, 0), LABELS) is None
    assert guess_note(task, scores(0, 0, 0, 0, 0, 0), LABELS) is not None
    assert guess_note(CLASSES, scores(0, 0), np.array([-1, -1])) is None


def test_errors_of_numbers(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=rng.normal(size=(50, 3)), y=rng.normal(size=(50, 1)))
    task = RegressionTask(NpzData(layout="NHWC"), root=str(tmp_path / "d.npz"))
    labels = task.splits().validation.labels
    assert guess_note(task, labels * 0.5 + labels.mean() / 2, labels) is None
    assert "rmse on validation" in guess_note(task, labels + 9, labels)
    best = RegressionTask(NpzData(layout="NHWC"), root=str(tmp_path / "d.npz"), metric="r2")
    assert guess_note(best, labels + 9, labels) is None  # of which no guess is known
