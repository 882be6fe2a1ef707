from itertools import pairwise

import numpy as np
import pytest

from evaluators.task.data.time_order import ORDER, in_order

SIZES = {"test": 20, "validation": 20, "calibration": 10, "train": None}


def spans(n=100, stride=1, length=5, n_series=1):
    first = np.tile(np.arange(n) * stride, n_series)
    return np.stack([first, first + length], axis=1)


@pytest.mark.parametrize("stride", [1, 2, 5, 9])
@pytest.mark.parametrize("gap", [0, 3])
@pytest.mark.parametrize("n_series", [1, 3])
def test_no_example_covers_a_time_of_another_split(stride, gap, n_series):
    given = spans(stride=stride, n_series=n_series)
    order = np.random.default_rng(0).permutation(len(given))
    sizes = {name: size and size * n_series for name, size in SIZES.items()}
    parts = in_order(given[order], sizes, gap)
    assert [*parts] == [*reversed(ORDER)]
    ends = {name: given[order][rows] for name, rows in parts.items()}
    for earlier, later in pairwise(ORDER):
        assert len(ends[earlier])
        assert ends[earlier][:, 1].max() + gap <= ends[later][:, 0].min()


def test_only_what_overlaps_is_left_out():
    parts = in_order(spans(), SIZES)
    assert [len(parts[name]) for name in ORDER] == [46, 6, 16, 20]
    assert [len(rows) for rows in in_order(spans(stride=5), SIZES).values()] == [20, 20, 10, 50]


def test_the_test_split_is_the_latest():
    assert in_order(spans(), SIZES)["test"].tolist() == [*range(80, 100)]


def test_a_split_may_be_empty():
    parts = in_order(spans(length=15), SIZES)
    assert not len(parts["calibration"])
    assert spans(length=15)[parts["train"], 1].max() <= spans(length=15)[parts["validation"], 0].min()
