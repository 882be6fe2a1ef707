import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from evaluators.task.tasks.classification.breast_cancer import MALIGNANT, BreastCancerTask
from evaluators.task.tasks.testing import TaskConformance
from spaces.errors import ConfigError


class TestBreastCancer(TaskConformance):
    @pytest.fixture
    def task(self):
        return BreastCancerTask()


def all_of(split):
    return next(split.batches(1000))


def named_splits(**arguments):
    splits = BreastCancerTask(**arguments).splits()
    return {name: all_of(getattr(splits, name)) for name in ("train", "calibration", "validation", "test")}


def test_sizes_and_shares_of_malignant_cases():
    found = named_splits()
    assert {name: len(y) for name, (_, y) in found.items()} == {
        "train": 200, "calibration": 39, "validation": 170, "test": 160,
    }  # fmt: skip
    assert sum(int((y == MALIGNANT).sum()) for _, y in found.values()) == 212
    assert all(0.34 < (y == MALIGNANT).mean() < 0.41 for _, y in found.values())


def test_malignant_tumours_are_the_larger_ones():
    """The labels are not swapped: the first feature is the mean radius."""
    x, y = named_splits()["test"]
    assert x[y == MALIGNANT, 0].mean() > 0.5 > -0.3 > x[y != MALIGNANT, 0].mean()


def test_the_train_split_alone_standardises():
    found = named_splits()
    x, _ = found["train"]
    assert x.mean(axis=0) == pytest.approx(np.zeros(30), abs=1e-4)
    assert x.std(axis=0) == pytest.approx(np.ones(30), abs=1e-4)
    assert np.abs(found["test"][0].mean(axis=0)).max() > 0.01


def test_inputs_are_the_features():
    raw, _ = load_breast_cancer(return_X_y=True)
    whole = np.concatenate([x for x, _ in named_splits().values()])
    for feature in (0, 17, 29):
        order = np.argsort(np.argsort(whole[:, feature], kind="stable"), kind="stable")
        assert np.corrcoef(np.sort(raw[:, feature])[order], whole[:, feature])[0, 1] > 0.9999


def test_the_division_depends_on_the_seed():
    one, same, other = (named_splits(split_seed=seed)["test"][0] for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"test": 500}, r"task\.test=500.*there are only 569"),
        ({"test": 360}, "leave 0 of 569 cases for training; at least 2"),
        ({"test": 0}, r"task\.test must be a whole number"),
    ],
)
def test_sizes_that_do_not_fit_raise(sizes, text):
    with pytest.raises(ConfigError, match=text):
        BreastCancerTask(**sizes).splits()
