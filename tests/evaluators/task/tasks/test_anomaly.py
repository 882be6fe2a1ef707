import numpy as np
import pytest

from evaluators.task.data.data import Data, Examples
from evaluators.task.data.npz import NpzData
from evaluators.task.data.sklearn_data import SklearnData
from evaluators.task.tasks.anomaly import AnomalyTask
from evaluators.task.tasks.testing import TaskConformance
from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import ArraySplit

NAMES = ("train", "calibration", "validation", "test")


def reproduced(splits):
    """Normal inputs as they are, and anomalies with errors."""
    labels = splits.validation.labels
    noise = np.random.default_rng(0).normal(0, 1, labels[:, 2:].shape)
    return (labels[:, 2:] + noise * labels[:, :1]).astype(np.float32)


class TestAnomaly(TaskConformance):
    @pytest.fixture
    def task(self):
        return AnomalyTask(SklearnData("wine"), anomalies=[2])

    def outputs(self, task, splits):
        return reproduced(splits)


class TestClips(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path):
        return clip_task(tmp_path)

    def outputs(self, task, splits):
        return reproduced(splits)


def arrays(n_clips=30, windows=4, share=3):
    rng = np.random.default_rng(0)
    clip = np.repeat(np.arange(n_clips), windows)
    return {
        "x": rng.normal(size=(len(clip), 5)).astype(np.float32),
        "y": (clip % share == 0).astype(int),
        "clip": clip,
    }


def clip_task(tmp_path, **more):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays() | more)
    return AnomalyTask(NpzData(group="clip"), root=str(path))


class Fixed(Data):
    """Examples in splits that the data fix."""

    def __init__(self, labels, **parts):
        self.labels, self.parts = np.asarray(labels), {name: np.asarray(rows) for name, rows in parts.items()}

    def read(self, root):
        x = np.random.default_rng(0).normal(size=(len(self.labels), 3)).astype(np.float32)
        return Examples(ArraySplit(x, self.labels), parts=self.parts)


def test_train_and_calibration_are_normal_and_anomalies_are_divided():
    splits = AnomalyTask(SklearnData("digits"), anomalies=[5]).splits()
    n = {name: int(getattr(splits, name).labels[:, 0].sum()) for name in NAMES}
    assert n == {"train": 0, "calibration": 0, "validation": 91, "test": 91}  # 182 in all
    assert sum(len(getattr(splits, name)) for name in NAMES) == 1797


def test_labels_hold_flag_clip_and_input(tmp_path):
    splits = clip_task(tmp_path).splits()
    for name in NAMES:
        for inputs, labels in getattr(splits, name).batches(3):
            np.testing.assert_array_equal(labels[:, 2:], inputs)
            np.testing.assert_array_equal(labels[:, 0], labels[:, 1] % 3 == 0)


def test_a_clip_is_in_one_split(tmp_path):
    splits = clip_task(tmp_path).splits()
    clips = [set(getattr(splits, name).labels[:, 1].tolist()) for name in NAMES]
    assert sum(map(len, clips)) == len(set.union(*clips)) == 30
    assert [len(getattr(splits, name)) for name in NAMES] == [4 * len(found) for found in clips]


def test_the_first_examples_have_both_kinds():
    labels = AnomalyTask(SklearnData("digits"), anomalies=[5]).splits().validation.labels
    assert labels[:50, 0].mean() == pytest.approx(labels[:, 0].mean(), abs=0.04)


def test_splits_that_the_data_fix_stay():
    labels = [0] * 30 + [1] * 10 + [0, 1] * 5
    splits = AnomalyTask(Fixed(labels, test=range(40, 50))).splits()
    assert splits.test.labels[:, 0].tolist() == [0, 1] * 5
    assert splits.validation.labels[:, 0].sum() == 10


@pytest.mark.parametrize(
    ("data", "settings", "text"),
    [
        (Fixed([0] * 20), {}, "0 of 20 examples are anomalies .task.anomalies=.1.."),
        (Fixed([1] * 20), {}, "20 of 20 examples are anomalies"),
        (Fixed([0.5] * 20), {}, "labels must be whole numbers"),
        (Fixed([0] * 20 + [1], test=[0, 1, 2]), {}, "the test split has 0 anomalies among 3 examples"),
        (
            Fixed([0] * 20 + [1] * 5, train=[3, 21]),
            {},
            "the data, example 21 is an anomaly in the train split",
        ),
    ],
)
def test_wrong_data(data, settings, text):
    with pytest.raises(InputError, match=text):
        AnomalyTask(data, **settings).splits()


def test_a_clip_of_both_kinds_names_its_rows(tmp_path):
    labels = arrays()["y"].copy()
    labels[6] = 1  # in the second clip, which is normal
    with pytest.raises(
        InputError,
        match=r"example 6 is an anomaly, but its clip 1 begins with one that is normal .*example 4",
    ):
        clip_task(tmp_path, y=labels).splits()


@pytest.mark.parametrize("settings", [{"anomalies": []}, {"max_fpr": 0.0}, {"max_fpr": 1.5}])
def test_wrong_settings(settings):
    with pytest.raises(ConfigError, match="must list at least one label"):
        AnomalyTask(SklearnData("wine"), **settings)


def test_an_output_has_the_size_of_the_input(tmp_path):
    task = clip_task(tmp_path)
    assert task.misfit(np.zeros((2, 5)), 2) is None
    assert "an autoencoder yields as many values as its input, 5" in task.misfit(np.zeros((2, 4)), 2)
