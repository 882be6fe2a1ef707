"""The streaming histogram: exact counts at any width, independent of order and batches."""

import math
from functools import reduce

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spaces.quantization.calibration import histogram as distribution
from spaces.quantization.calibration.histogram import LEAST_EXPONENT, N_SIDE, Distribution, exponent_of

SIZES = st.floats(width=32, allow_nan=False, allow_infinity=False)
VALUES = hnp.arrays(np.float32, hnp.array_shapes(max_dims=2, max_side=30), elements=SIZES)


def distribution_of(*parts):
    found = Distribution()
    for part in parts:
        assert found.add(np.asarray(part, np.float32))
    return found


def same(a, b):
    states = [(d.low, d.high, d.zeros, d.exponent) for d in (a, b)]
    return states[0] == states[1] and np.array_equal(a.counts, b.counts)


def counted_one_by_one(values, width):
    counts = np.zeros(2 * N_SIDE, np.int64)
    for value in values[values != 0].astype(np.float64).tolist():
        steps = math.floor(abs(value) / width)
        counts[N_SIDE + steps if value > 0 else N_SIDE - 1 - steps] += 1
    return counts


@given(VALUES)
@example(np.array([0.0, -0.0], np.float32))
@example(np.array([-1.0, 1.0, 1e-45, -1e-45], np.float32))
@example(np.array([3.4e38, -1e-40], np.float32))
@settings(deadline=None)
def test_every_value_is_in_its_bin(values):
    found = distribution_of(values)
    assert (found.low, found.high) == (values.min(), values.max())
    assert found.zeros == np.count_nonzero(values == 0)
    assert np.array_equal(found.counts, counted_one_by_one(values.ravel(), found.width))
    assert (
        found.exponent == LEAST_EXPONENT or np.abs(values.astype(np.float64)).max() * 2 >= 2.0**found.exponent
    )


@given(VALUES, st.lists(st.integers(0, 900), max_size=5), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_parts_and_order_do_not_matter(values, cuts, random):
    whole, flat = distribution_of(values), values.ravel()
    order = list(range(flat.size))
    random.shuffle(order)
    parts = [part for part in np.split(flat[order], sorted(c % flat.size for c in cuts)) if part.size]
    assert same(distribution_of(*parts), whole)
    merged = Distribution()
    for part in parts:
        merged.merge(distribution_of(part))
    assert same(merged, whole)


def test_chunks_do_not_matter(monkeypatch):
    values = np.random.default_rng(0).standard_normal((7, 300)).astype(np.float32) ** 3
    whole = distribution_of(values)
    monkeypatch.setattr(distribution, "CHUNK", 64)
    assert same(distribution_of(values), whole)


def test_merging_does_not_change_the_other():
    small, large = distribution_of([0.1, -0.3]), distribution_of([100.0])
    before = small.counts.copy()
    large.merge(small)
    assert np.array_equal(small.counts, before)
    assert small.exponent < large.exponent


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_return_false(value):
    assert not Distribution().add(np.array([1.0, value, 2.0], np.float32))


@given(VALUES)
@settings(deadline=None)
def test_the_histogram_spans_the_values(values):
    found = distribution_of(values)
    histogram = found.histogram()
    edges = histogram.edges
    assert (edges[0], edges[-1]) == (histogram.low, histogram.high) == (values.min(), values.max())
    assert np.all(np.diff(edges) >= 0)
    assert np.diff(edges).max() <= found.width
    assert histogram.counts.sum() + histogram.zeros == values.size
    coarse = histogram.coarser(64)
    assert len(coarse.counts) <= max(64, 2)
    assert coarse.counts.sum() == histogram.counts.sum()
    assert (coarse.edges[0], coarse.edges[-1]) == (histogram.low, histogram.high)
    cumulated = np.concatenate([[0], np.cumsum(histogram.counts)])
    joined = np.concatenate([[0], np.cumsum(coarse.counts)])
    # the first and the last bin may have zero width, so that an edge occurs twice
    assert all(n in cumulated[edges == edge] for edge, n in zip(coarse.edges, joined, strict=True))


def test_the_larger_side_has_many_bins():
    for high in (1.0, 1.01, 1.99, 6.0):
        assert len(distribution_of([0.0, high]).histogram().counts) >= N_SIDE / 2


@pytest.mark.parametrize(
    ("size", "expected"), [(1.0, 1), (0.99, 0), (0.0, LEAST_EXPONENT), (1e-40, LEAST_EXPONENT)]
)
def test_exponents(size, expected):
    assert exponent_of(size) == expected


def test_merging_adds_counts():
    parts = [distribution_of(np.full(3, 2.0**i)) for i in range(5)]
    total = reduce(lambda a, b: (a.merge(b), a)[1], parts, Distribution())
    assert total.counts.sum() == 15
