from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.errors import StageError
from spaces.recovery.training.examples import examples_of, n_batches
from spaces.stages.array_split import ArraySplit

CPU = torch.device("cpu")


def numbered(n):
    numbers = np.arange(n)
    return ArraySplit(numbers[:, None].astype(np.float32), numbers.astype(np.int64))


def drawn(examples, batch_size, seed=0):
    return [
        (x[:, 0].tolist(), y.tolist())
        for x, y in examples.epoch(batch_size, torch.Generator().manual_seed(seed))
    ]


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 60), batch_size=st.integers(2, 70), most_bytes=st.sampled_from([0, 32, 100, 10**6]))
def test_every_example_comes_once_with_its_label(n, batch_size, most_bytes):
    batches = drawn(examples_of(numbered(n), CPU, most_bytes), batch_size)
    assert len(batches) == n_batches(n, batch_size)
    assert all(x == y for x, y in batches)
    sizes = [len(y) for _, y in batches]
    assert all(size == min(batch_size, n) for size in sizes[:-1])
    labels = [label for _, y in batches for label in y]
    assert len(set(labels)) == len(labels) == n - (n > batch_size and n % batch_size == 1)


def test_examples_that_do_not_fit_in_memory_are_streamed_through_a_buffer():
    split = numbered(4096)
    (streamed,) = [examples_of(split, CPU, 4 * 1500)]
    order = [label for _, y in drawn(streamed, 64) for label in y]
    assert sorted(order) == list(range(4096))
    assert order != sorted(order)
    assert sum(a > b for a, b in pairwise(order)) > 1500  # well mixed; 2048 if fully


@pytest.mark.parametrize("most_bytes", [0, 10**6])
def test_order_is_the_generators(most_bytes):
    examples = examples_of(numbered(50), CPU, most_bytes)
    assert drawn(examples, 8, seed=1) == drawn(examples, 8, seed=1)
    assert drawn(examples, 8, seed=1) != drawn(examples, 8, seed=2)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_examples_raise(n):
    with pytest.raises(StageError, match=f"{n} examples"):
        examples_of(numbered(n), CPU)
