from pathlib import Path

import numpy as np
import pytest

from evaluators.task.metrics.classes.top_k import TopK
from evaluators.task.tasks.classification.npz import NpzTask
from evaluators.task.tasks.testing import TaskConformance
from spaces.errors import ConfigError, InputError

DATA = Path(__file__).parents[4].parent / "shared/data"
SIZES = {"calibration": 10, "validation": 20, "test": 30}


def write(path, n=100, shape=(16, 3), **more):
    rng = np.random.default_rng(len(path.name))
    np.savez(path, x=rng.standard_normal((n, *shape)).astype(np.float32), y=np.arange(n) % 4, **more)
    return str(path)


class TestOneFile(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path):
        return NpzTask(write(tmp_path / "data.npz"), [3, 16], 4, **SIZES)


class TestTwoFiles(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path):
        files = [write(tmp_path / name) for name in ("train.npz", "of_test.npz")]
        return NpzTask(files[0], [16, 3], 4, test_root=files[1], layout="NHWC", **SIZES)

    def test_second_file_is_the_test_split(self, splits):
        assert (len(splits.test), len(splits.train)) == (100, 70)


class TestGroups(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path):
        path = write(tmp_path / "data.npz", who=np.arange(100) // 7)
        return NpzTask(path, [3, 16], 4, group="who", calibration=2, validation=3, test=4)

    def test_no_group_is_divided(self, tmp_path):
        x = np.repeat(np.arange(20), 5)
        np.savez(tmp_path / "g.npz", x=x[:, None].astype(float), y=x * 0, who=x)
        task = NpzTask(str(tmp_path / "g.npz"), [1], 1, group="who", calibration=2, validation=3, test=4)
        splits = task.splits()
        parts = [
            set(next(s.batches(100))[0].ravel()) for s in (splits.calibration, splits.validation, splits.test)
        ]
        assert [len(p) for p in parts] == [2, 3, 4]
        assert len(set.union(*parts)) == 9

    def test_the_first_examples_of_a_split_have_groups_and_classes_in_proportion(self, tmp_path):
        who, y = np.repeat(np.arange(6), 40), np.tile(np.repeat(np.arange(4), 10), 6)  # stored in blocks
        np.savez(tmp_path / "g.npz", x=np.stack([who, y], 1).astype(float), y=y, who=who)
        task = NpzTask(str(tmp_path / "g.npz"), [2], 4, group="who", calibration=1, validation=2, test=2)
        (first, _), *_ = task.splits().validation.batches(16)
        strata, counts = np.unique(first, axis=0, return_counts=True)
        assert np.abs(counts - 2).max() <= 2  # eight strata, each within two examples of its share
        assert (len(set(strata[:, 0])), len(set(strata[:, 1]))) == (2, 4)

    def test_sizes_count_groups(self, tmp_path):
        path = write(tmp_path / "data.npz", who=np.arange(100) // 50)
        with pytest.raises(ConfigError, match=r"only 2 .*sizes count groups"):
            NpzTask(path, [3, 16], 4, group="who", **SIZES).splits()


def test_flat_examples_can_be_reshaped(tmp_path):
    path = write(tmp_path / "data.npz", shape=(48,))
    task = NpzTask(path, [3, 4, 4], 4, example_shape=[4, 4, 3], **SIZES)
    assert next(task.splits().test.batches(5))[0].shape == (5, 3, 4, 4)
    with pytest.raises(InputError, match=r"cannot be brought to task.example_shape=\[5, 5, 3\]"):
        NpzTask(path, [3, 5, 5], 4, example_shape=[5, 5, 3], **SIZES).splits()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"x": np.zeros((50, 3, 16)), "y": np.zeros(50, int)},
            r"inputs of shape \(16, 3\).*task.input_shape is \(3, 16\)",
        ),
        ({"x": np.zeros((50, 16, 3)), "y": np.full(50, 4)}, "labels lie in 4..4, but 4 classes"),
        ({"x": np.zeros((50, 16, 3)), "y": np.zeros(49, int)}, "50 whole-number labels"),
        ({"x": np.full((50, 16, 3), np.nan), "y": np.zeros(50, int)}, "not finite"),
        ({"x": np.full((50, 16, 3), "a"), "y": np.zeros(50, int)}, "must be numbers"),
        ({"x": np.zeros((50, 16, 3))}, "has no array 'y'"),
    ],
)
def test_invalid_arrays_raise(tmp_path, arrays, message):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(InputError, match=message):
        NpzTask(str(tmp_path / "d.npz"), [3, 16], 4, calibration=5, validation=5, test=5).splits()


def test_shapes_are_checked_at_once(tmp_path):
    with pytest.raises(ConfigError, match=r"task\.input_shape must list"):
        NpzTask("x.npz", ["a"], 4)


def test_activity_windows_split_by_person():
    path = DATA / "har/hapt_windows128.npz"
    if not path.is_file():
        pytest.skip("the human-activity windows are absent")
    task = NpzTask(str(path), [6, 128], 6, group="subject", calibration=3, validation=5, test=9)
    splits = task.splits()
    assert sum(len(getattr(splits, n)) for n in ("train", "calibration", "validation", "test")) == 10017


class TestSeveralInputs(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path):
        rng = np.random.default_rng(0)
        np.savez(
            tmp_path / "d.npz",
            pixels=rng.integers(0, 256, (100, 4, 4, 3), np.uint8),
            ids=rng.integers(0, 50, (100, 6)),
            length=np.arange(100),
            mask=rng.random((100, 6)) > 0.5,
            y=np.arange(100) % 4,
        )
        shapes = {"image": [3, 4, 4], "ids": [6], "length": [], "mask": [6]}
        return NpzTask(
            str(tmp_path / "d.npz"), shapes, 4, x={"image": "pixels"}, scale={"image": 1 / 255}, **SIZES
        )

    def test_every_input_has_settings_of_its_own(self, splits):
        inputs, _ = next(splits.validation.batches(20))
        assert list(inputs) == ["image", "ids", "length", "mask"]
        assert 0.9 < inputs["image"].max() <= 1
        assert inputs["ids"].max() > 1


def test_settings_of_unknown_inputs_and_arrays_of_other_lengths_raise(tmp_path):
    np.savez(tmp_path / "d.npz", a=np.zeros((100, 3)), b=np.zeros((99, 2)), y=np.arange(100) % 4)
    with pytest.raises(ConfigError, match=r"'c' in task\.scale"):
        NpzTask(str(tmp_path / "d.npz"), {"a": [3], "b": [2]}, 4, scale={"c": 2.0})
    with pytest.raises(InputError, match="b has 99 examples, but y has 100 labels"):
        NpzTask(str(tmp_path / "d.npz"), {"a": [3], "b": [2]}, 4, **SIZES).splits()


def test_whole_numbers_beyond_float32_keep_their_type(tmp_path):
    x = np.arange(100)[:, None] + 2**40
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(100) % 4)
    splits = NpzTask(str(tmp_path / "d.npz"), [1], 4, **SIZES).splits()
    inputs = np.concatenate(
        [part.inputs for part in (splits.train, splits.calibration, splits.validation, splits.test)]
    )
    np.testing.assert_array_equal(np.sort(inputs, axis=0), x)


def test_another_metric_of_classes(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.zeros((40, 3), np.float32), y=np.arange(40) % 4)
    task = NpzTask(str(tmp_path / "data.npz"), [3], 4, calibration=5, validation=5, test=5, metric=TopK(2))
    assert (task.metric.name, task.n_classes) == ("top2", 4)
    assert task.metric.per_example(np.array([[0.1, 0.3, 0.2, 0.0]]), np.array([2])).tolist() == [1.0]
