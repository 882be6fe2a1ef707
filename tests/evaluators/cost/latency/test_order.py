import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.cost.latency.order import TIE, median_bounds, ratio

times = st.floats(1e-3, 1e3)


@pytest.mark.parametrize(("n", "ranks"), [(1, (1, 1)), (5, (1, 5)), (6, (1, 6)), (9, (2, 8)), (24, (7, 18))])
def test_ranks_of_the_sign_test(n, ranks):
    """Table of the order statistics that enclose the median with 95 %: 6 values are the fewest."""
    assert median_bounds(np.arange(1.0, n + 1)) == ranks


@pytest.mark.parametrize(("n", "confidence"), [(6, 0.95), (8, 0.99), (15, 0.95), (24, 0.99)])
def test_the_interval_covers_the_median_of_skewed_times(n, confidence):
    """Times have a lower limit and far outliers; 2,000 samples: the share is known to 0.5 points (1 standard error)."""
    rng = np.random.default_rng(0)
    samples = 1.0 + rng.pareto(0.8, (2000, n))
    true = 1.0 + 2 ** (1 / 0.8) - 1
    bounds = [median_bounds(sample, confidence) for sample in samples]
    assert np.mean([low <= true <= high for low, high in bounds]) > confidence - 0.015


@given(st.lists(times, min_size=1, max_size=30))
def test_the_interval_encloses_the_sample_median(values):
    low, high = median_bounds(values)
    assert low <= np.median(values) <= high


@given(st.lists(st.tuples(times, times), min_size=2, max_size=24), st.floats(0.5, 2))
def test_a_load_that_both_share_cancels(pairs, load):
    first, second = ([pair[i] for pair in pairs] for i in (0, 1))
    loads = np.linspace(1, load, len(pairs))
    plain = ratio(first, second)
    loaded = ratio(list(loads * first), list(loads * second))
    assert plain is not None
    assert loaded is not None
    assert (loaded.median, loaded.low, loaded.high) == pytest.approx((plain.median, plain.low, plain.high))


def test_only_rounds_of_both_count():
    found = ratio([1.0, None, 3.0, 4.0], [2.0, 5.0, None, 8.0])
    assert found is not None
    assert found.median == 0.5
    assert ratio([1.0, None], [None, 1.0]) is None
    assert ratio([], [1.0]) is None


@pytest.mark.parametrize(
    ("second", "tie", "decided"),
    [(1.0, True, True), (1 + TIE / 2, True, True), (1.2, False, True), (0.8, False, True)],
)
def test_orders_of_exact_times(second, tie, decided):
    found = ratio([1.0] * 8, [second] * 8)
    assert found is not None
    assert (found.is_tie, found.is_decided) == (tie, decided)


def test_times_that_cross_are_not_decided():
    found = ratio([1.0, 1.2] * 4, [1.1] * 8)
    assert found is not None
    assert not found.is_decided
