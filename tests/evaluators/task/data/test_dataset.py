import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from evaluators.task.data.dataset import DatasetData
from evaluators.task.tasks.regression import RegressionTask
from evaluators.task.tasks.testing import TaskConformance
from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import StoredRows
from spaces.stages.inputs import each


class Points(Dataset):
    """Numbered items; `change` replaces some of them."""

    def __init__(self, n=40, change=None, seed=0):
        self.x = np.random.default_rng(seed).normal(size=(n, 2, 3))
        self.change = change or {}

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        item = (torch.tensor(self.x[i]), float(self.x[i].sum()))
        found = self.change.get(i, item)
        return found() if callable(found) else found


class Stream(IterableDataset):
    def __iter__(self):
        yield from Points()


def read(tmp_path, dataset, **settings):
    return DatasetData(dataset, str(tmp_path / "cache"), **settings).read(None)


class TestDataset(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path):
        return RegressionTask(DatasetData(Points(), str(tmp_path)))

    def outputs(self, task, splits):
        return splits.validation.labels


class TestStoredDataset(TestDataset):
    @pytest.fixture
    def task(self, tmp_path):
        return RegressionTask(DatasetData(Points(), str(tmp_path), memory_bytes=100))


@pytest.mark.parametrize("kind", [Points, Stream, lambda: (item for item in Points()), lambda: [*Points()]])
def test_every_kind_of_dataset_gives_the_same_examples(tmp_path, kind):
    examples = read(tmp_path, kind())
    np.testing.assert_array_equal(examples.split.inputs, Points().x.astype(np.float32))
    np.testing.assert_allclose(examples.labels, Points().x.sum((1, 2)))


def test_a_generator_can_be_read_again_and_limited(tmp_path):
    def endless():
        while True:
            yield np.zeros(2), 1

    data = DatasetData(endless(), str(tmp_path), limit=5)
    assert len(data.read(None).split) == len(data.read(None).split) == 5


def test_large_inputs_are_stored_once_and_are_equal_to_those_in_memory(tmp_path):
    few, many = read(tmp_path, Points()), read(tmp_path, Points(), memory_bytes="0.5 kB")
    assert isinstance(few.split.raw, np.ndarray)
    assert isinstance(many.split.raw, StoredRows)
    np.testing.assert_array_equal(few.split.inputs, many.split.inputs)
    rows = np.array([30, 2])
    np.testing.assert_array_equal(few.split.subset(rows).inputs, many.split.subset(rows).inputs)
    read(tmp_path, Points(), memory_bytes=0)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [many.split.raw.path.name]
    other = read(tmp_path, Points(seed=1), memory_bytes=0)
    assert other.split.digest != many.split.digest


def test_no_more_than_a_few_megabytes_are_held_in_memory(tmp_path):
    import tracemalloc

    def large():
        for i in range(64):
            yield np.full(2**18, i, np.float32), i  # 1 MiB each

    tracemalloc.start()
    examples = read(tmp_path, large(), memory_bytes="4 MiB")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 2**20
    assert [int(x[0, 0]) for x, _ in examples.split.subset(np.array([63, 5])).batches(1)] == [63, 5]


def test_inputs_by_name_keep_their_types(tmp_path):
    items = [({"ids": torch.arange(3) + i, "mask": [1.0, 0.0]}, i) for i in range(4)]
    batch, labels = next(iter(read(tmp_path, items).split.batches(4)))
    assert {name: (a.shape, a.dtype) for name, a in batch.items()} == {
        "ids": ((4, 3), np.int64),
        "mask": ((4, 2), np.float32),
    }
    assert labels.tolist() == [0, 1, 2, 3]
    stored, _ = next(iter(read(tmp_path, items, memory_bytes=0).split.batches(4)))
    each(lambda a: a, stored)
    np.testing.assert_array_equal(stored["ids"], batch["ids"])


@pytest.mark.parametrize(
    ("labels", "dtype", "shape"),
    [
        ([1, 2], "i", (2,)),
        ([True, 2.5], "f", (2,)),
        (["yes", "or no"], "U", (2,)),
        ([torch.zeros(2, 2, dtype=torch.bfloat16)] * 2, "f", (2, 2, 2)),
        ([[1, 2, 3], []], "O", (2,)),
        ([np.zeros((0, 5), np.float32), np.ones((3, 5), np.float32)], "O", (2,)),
    ],
)
def test_labels_of_any_kind(tmp_path, labels, dtype, shape):
    found = read(tmp_path, [(np.zeros(2), label) for label in labels]).labels
    assert (found.dtype.kind, found.shape) == (dtype, shape)
    if dtype == "O":
        assert len({label.dtype for label in found}) == 1
        assert [label.shape for label in found] == [np.shape(label) for label in labels]


def test_groups_and_splits_of_their_own(tmp_path):
    items = [(np.full(2, i), i, f"person {i // 4}") for i in range(20)]
    tests = [(np.full(2, i), i, "another") for i in range(100, 103)]
    task = RegressionTask(DatasetData(items, str(tmp_path), test=tests), calibration=1, validation=1)
    splits = task.splits()
    assert sorted(splits.test.labels.ravel()) == [100, 101, 102]
    assert len({int(y) // 4 for y in splits.validation.labels.ravel()}) == 1
    assert task._examples.place(21) == "builtins.list, item 1"


def fails():
    raise KeyError("no such picture")


X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (fails, "Points, item 7: KeyError: 'no such picture' (test_dataset.py, line "),
        (X, "Points, item 7: an item must be (input, label) or (input, label, group), not Tensor"),
        ((X,), "an item must be (input, label) or (input, label, group), not tuple of 1 parts"),
        ((X, 1.0, 2), "item 7: the item has a group, but the first item has none"),
        ((torch.zeros(3, 3), 1.0), "item 7: the input has the shape (3, 3), but in the first item (2, 3)"),
        ((X.int(), 1.0), "item 7: the input has the type int32, but in the first item float32"),
        (
            ({"a": X}, 1.0),
            "item 7: the item has the inputs a, but the first one has one input without a name",
        ),
        (("text", 1.0), "item 7: the input must be numbers, not str"),
        (([[1, 2], [3]], 1.0), "item 7: the input is no array: ValueError: "),
        ((X * float("nan"), 1.0), "item 7: the input holds values that are not finite"),
        ((X, "cat"), "item 7: the label is a text, but in the first item of numbers"),
        ((X, None), "item 7: the label must be a number, a text or an array of numbers, not NoneType"),
        ((X, [1.0]), "item 7: the label has 1 axes, shape (1,), but in the first item 0, shape ()"),
    ],
)
def test_a_wrong_item_is_named(tmp_path, change, message):
    with pytest.raises(InputError) as caught:
        read(tmp_path, Points(change={7: change}), memory_bytes=0)
    assert message in str(caught.value)
    assert not list((tmp_path / "cache").iterdir())


def test_a_wrong_label_is_named_by_the_task(tmp_path):
    task = RegressionTask(DatasetData(Points(change={7: (X, float("inf"))}), str(tmp_path)))
    with pytest.raises(InputError, match="Points, item 7: the label inf is not finite"):
        task.splits()


def test_empty_datasets_raise(tmp_path):
    with pytest.raises(InputError, match=r"Points \(task\.data\.dataset\) has no items"):
        read(tmp_path, Points(0))
    with pytest.raises(InputError, match=r"list \(task\.data\.validation\) has no items"):
        read(tmp_path, Points(), validation=[])


def test_what_is_no_dataset_raises(tmp_path):
    for wrong in (object(), "text", {"a": 1}, 3):
        with pytest.raises(ConfigError, match=r"task\.data\.dataset must name in `_target_` a dataset"):
            DatasetData(wrong, str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"task\.data\.test must be a dataset of single examples, not a DataLoader"
    ):
        DatasetData(Points(), str(tmp_path), test=DataLoader(Points()))
    with pytest.raises(ConfigError, match=r"task\.root=.* is not used"):
        DatasetData(Points(), str(tmp_path)).read(tmp_path)
    with pytest.raises(ConfigError, match=r"task\.data\.limit"):
        DatasetData(Points(), str(tmp_path), limit=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        DatasetData(Points(), str(tmp_path / "file"), memory_bytes=0).read(None)
