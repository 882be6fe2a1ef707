"""Regression: conformance, labels and bad input."""

import numpy as np
import pytest

from evaluators.task.data.npz import NpzData
from evaluators.task.data.sklearn_data import SklearnData
from evaluators.task.tasks.regression import RegressionTask
from evaluators.task.tasks.testing import TaskConformance
from spaces.errors import ConfigError, InputError


class TestRegressionTask(TaskConformance):
    @pytest.fixture
    def task(self):
        return RegressionTask(SklearnData("diabetes"), unit="points")

    def outputs(self, task, splits):
        return splits.validation.labels


def stored(folder, **arrays):
    rng = np.random.default_rng(0)
    given = {"x": rng.normal(size=(40, 5)).astype(np.float32), "y": rng.normal(size=(40, 2)), **arrays}
    np.savez(folder / "data.npz", **given)
    return str(folder / "data.npz")


def test_metrics_units_and_sizes(tmp_path):
    task = RegressionTask(NpzData(), root=stored(tmp_path), unit="mm", metric="mae", also=["rmse"], test=5)
    assert (task.metric.name, task.metric.unit, task.others[0].name) == ("mae", "mm", "rmse")
    splits = task.splits()
    assert [len(getattr(splits, n)) for n in ("test", "validation", "calibration", "train")] == [5, 8, 4, 23]
    assert splits.validation.labels.shape == (8, 2)
    assert task.input_shape == (5,)
    assert task.misfit(np.zeros((4, 2)), 4) is None
    assert (
        task.misfit(np.zeros((4, 3)), 4) == "the model yields (4, 3) for 4 examples, but a label has 2 values"
    )


def test_no_group_is_divided(tmp_path):
    people = np.repeat(np.arange(10), 4)
    task = RegressionTask(
        NpzData(group="who"),
        root=stored(tmp_path, x=np.arange(40.0)[:, None], who=people),
        calibration=2,
        validation=3,
        test=2,
    )
    splits = task.splits()
    who = [
        set(people[s.inputs[:, 0].astype(int)])
        for s in (splits.test, splits.validation, splits.calibration, splits.train)
    ]
    assert [len(w) for w in who] == [2, 3, 2, 3]
    assert len(set.union(*who)) == 10


@pytest.mark.parametrize(
    ("arrays", "settings", "error", "message"),
    [
        ({"y": np.array(["a"] * 40)}, {}, InputError, r"data\.npz, example 0: the label 'a' is not a number"),
        ({"y": np.r_[np.zeros(39), np.nan]}, {}, InputError, r"data\.npz, example 39: the label nan is not finite"),
        ({"y": np.zeros(39)}, {}, InputError, r"data\.npz: x has 40 examples, but y has 39 labels"),
        ({}, {"metric": "rsme"}, ConfigError, "Unknown metric 'rsme' in task.metric. Did you mean 'rmse'"),
        ({}, {"validation": 1.5}, ConfigError, "task.validation must be a number of examples or a share below 1"),
        ({}, {"validation": 41}, ConfigError, "asks for"),
    ],
)  # fmt: skip
def test_bad_input(tmp_path, arrays, settings, error, message):
    with pytest.raises(error, match=message):
        RegressionTask(NpzData(), root=stored(tmp_path, **arrays), **settings).splits()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "HWC"}, r"task\.data\.layout must be NCHW or NHWC"),
        ({"mean": ["a"]}, r"task\.data\.mean must list numbers"),
        ({"std": [0.0]}, r"task\.data\.std must not hold 0"),
        ({"mean": [0.1, 0.2]}, r"task\.data\.mean has 2 values, but the examples have 5 channels"),
        ({"example_shape": [0]}, r"task\.data\.example_shape must list the positive sizes"),
        ({"example_shape": [2, 2]}, r"cannot be brought to task\.data\.example_shape=\[2, 2\]"),
        ({"input_shape": [4]}, r"under task\.data\.layout=NCHW, but task\.data\.input_shape is \(4,\)"),
        ({"input_shape": {"x": [4]}}, r"but task\.data\.input_shape\.x is \(4,\)"),
        ({"input_shape": {"x": [5]}, "scale": {"z": 2.0}}, r"'z' in task\.data\.scale"),
    ],
)
def test_messages_name_the_key_of_the_loader(tmp_path, settings, message):
    with pytest.raises((ConfigError, InputError), match=message):
        RegressionTask(NpzData(**settings), root=stored(tmp_path)).splits()


def test_a_task_needs_its_root():
    with pytest.raises(ConfigError, match=r"task\.root must be given: the \.npz file"):
        RegressionTask(NpzData()).splits()


def test_the_mean_label_is_the_guess_whose_error_is_a_unit(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((60, 4)), y=np.random.default_rng(0).normal(3, 2, (60, 2)))
    task = RegressionTask(NpzData(), root=str(tmp_path / "a.npz"))
    labels = task.splits().validation.labels
    assert task.guess_error() == pytest.approx(np.sqrt(labels.var(axis=0).mean()))
    assert RegressionTask(NpzData(), root=str(tmp_path / "a.npz"), metric="r2").guess_error() is None
