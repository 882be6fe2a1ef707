import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from search.samplers import arms
from search.samplers.arms import Box

COORDINATES = st.floats(0, 1, exclude_max=True)
POINTS = st.integers(0, 40).flatmap(lambda n: arrays(float, (n, 2), elements=COORDINATES))
SLOTS = st.integers(1, 20).flatmap(
    lambda n: arrays(float, (n, 2), elements=st.one_of(COORDINATES, st.just(math.nan)))
)
CELLS = st.lists(st.one_of(st.none(), st.integers(2, 9)), min_size=2, max_size=2)


def partition(points, n_cells, min_pulls, tolerance):
    return arms.partition(points, np.ones(len(points)), n_cells, min_pulls, tolerance)


@given(POINTS, CELLS, st.integers(1, 6))
def test_boxes_partition_the_cube(points, cells, min_pulls):
    boxes = partition(points, cells, min_pulls, tolerance=0.1)
    assert sum(float((box.high - box.low).prod()) for box in boxes) == pytest.approx(1.0)
    held = np.stack([box.holds(points) for box in boxes])
    assert np.array_equal(held.sum(axis=0), np.ones(len(points)))
    assert set(held.reshape(-1)) <= {0.0, 1.0}


@given(SLOTS, st.integers(1, 6))
def test_a_point_without_a_value_is_divided_among_boxes(points, min_pulls):
    boxes = partition(points, [None, None], min_pulls, tolerance=0.1)
    held = np.stack([box.holds(points) for box in boxes])
    assert np.allclose(held.sum(axis=0), 1.0)


@given(POINTS, st.integers(2, 6))
def test_full_boxes_are_cut_down_to_the_tolerance(points, min_pulls):
    for box in partition(points, [None, None], min_pulls, tolerance=0.3):
        full = box.holds(points).sum() >= min_pulls
        assert not full or (box.high - box.low).max() <= 0.3


def test_boxes_are_merged_again_as_weights_decay():
    points = np.linspace(0, 0.99, 20)[:, None]
    counts = [len(arms.partition(points, np.full(20, w), [None], 4, 0.05)) for w in (1.0, 0.5, 0.1)]
    assert counts[0] > counts[1] > counts[2] == 1


@given(POINTS, CELLS)
def test_the_order_of_points_does_not_matter(points, cells):
    first, second = (partition(p, cells, 3, 0.1) for p in (points, points[::-1]))
    assert [(b.low.tolist(), b.high.tolist()) for b in first] == [
        (b.low.tolist(), b.high.tolist()) for b in second
    ]


@given(POINTS, st.integers(2, 9))
def test_cells_are_never_cut(points, n):
    for box in partition(points, [n, None], 1, tolerance=0.2):
        for end in (box.low[0] * n, box.high[0] * n):
            assert end == pytest.approx(round(end))


def test_the_longer_side_is_cut():
    low, high = Box(np.array([0.0, 0.0]), np.array([0.5, 1.0])).halves([None, None], 0.1)
    assert (low.high.tolist(), high.low.tolist()) == ([0.5, 0.5], [0.0, 0.5])
    # a side that is a single cell cannot be cut, so the other one is
    low, _ = Box(np.zeros(2), np.ones(2)).halves([1, None], 0.1)
    assert low.high.tolist() == [1.0, 0.5]
    assert Box(np.zeros(2), np.full(2, 0.1)).halves([None, None], 0.1) is None


def test_draws_are_in_the_box():
    box = Box(np.array([0.25, 0.5]), np.array([0.5, 1.0]))
    rng = np.random.default_rng(0)
    assert all(box.holds(box.draw(rng)[None])[0] == 1.0 for _ in range(50))
