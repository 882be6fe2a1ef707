import numpy as np
import pytest

from evaluators.task.data.dataset import DatasetData
from evaluators.task.data.leaks import copy_notes
from evaluators.task.data.named_split import NamedSplit
from evaluators.task.data.splits import Normalise
from evaluators.task.tasks.regression import RegressionTask
from spaces.errors import InputError
from spaces.stages.array_split import ArraySplit, StoredRows

X = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 1), dtype=np.uint8)
ROWS = {
    "train": [*range(20)],
    "calibration": [*range(10)],
    "validation": [*range(20, 38), 3, 7],
    "test": [*range(40, 58), 5, 25],
}
FOUND = (
    "2 of 20 validation examples are exact copies of train examples, which training has seen: the quality on the validation split "
    "may be too good",
    "1 of 20 test examples is an exact copy of train examples, which training has seen: the quality on the test split may be too good",
    "1 of 20 test examples is an exact copy of validation examples, which the search has seen: the quality on the test split may be "
    "too good",
)


def in_memory(x):
    return ArraySplit(x, np.arange(len(x)), Normalise())


def named(x):
    other = np.zeros((len(x), 2))
    return NamedSplit({name: ArraySplit(a, np.arange(len(x))) for name, a in (("zeros", other), ("x", x))})


class Lazy:
    """A split of which only batches are known."""

    def __init__(self, x):
        self._split = in_memory(x)

    def __len__(self):
        return len(self._split)

    def batches(self, batch_size, limit=None):
        return self._split.batches(batch_size, limit)


def stored_in(folder):
    np.save(folder / "x.npy", X)
    return lambda rows: ArraySplit(StoredRows(folder / "x.npy", "content", np.array(rows)), np.array(rows))


@pytest.mark.parametrize("kind", [in_memory, named, Lazy])
def test_copies_are_noted_in_every_kind_of_split(kind):
    assert copy_notes({name: kind(X[rows]) for name, rows in ROWS.items()}) == FOUND


def test_copies_are_noted_in_stored_rows(tmp_path):
    stored = stored_in(tmp_path)
    assert copy_notes({name: stored(rows) for name, rows in ROWS.items()}) == FOUND


def test_without_copies_there_is_no_note():
    rows = ROWS | {"validation": [*range(20, 38)], "test": [*range(40, 58)]}
    assert copy_notes({name: in_memory(X[r]) for name, r in rows.items()}) == ()


def test_without_training_data_only_the_test_split_is_compared():
    notes = copy_notes({name: in_memory(X[r]) for name, r in (ROWS | {"train": []}).items()})
    assert notes == FOUND[2:]


def test_large_splits_are_not_compared_which_is_said():
    splits = {name: in_memory(X[rows]) for name, rows in ROWS.items()}
    assert copy_notes(splits, most_bytes=60 * 2048) == FOUND
    (note,) = copy_notes(splits, most_bytes=60 * 2048 - 1)
    assert note.startswith(
        "whether examples are in two splits was not checked: validation and train and test have 0.0 GiB"
    )


def test_a_group_of_a_test_split_of_its_own_is_in_no_other(tmp_path):
    items = [(np.full(2, i), i, i // 4) for i in range(20)]
    tests = [(np.full(2, i), i, 99 if i < 102 else 3) for i in range(100, 103)]
    task = RegressionTask(DatasetData(items, str(tmp_path), test=tests), calibration=1, validation=1)
    with pytest.raises(InputError, match=r"item 12: group 3 is in the splits test and the rest"):
        task.splits()
