import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.report.page.axis import scale

values = st.lists(st.floats(-1e9, 1e9, allow_subnormal=False), min_size=1, max_size=20)


@given(values, st.booleans())
def test_values_are_drawn_within_the_axis_in_their_order(drawn, is_upward):
    start, end = (200.0, 20.0) if is_upward else (20.0, 200.0)
    found = scale(drawn, start, end)
    places = [found.at(v) for v in sorted(drawn)]
    assert all(20 - 1e-6 <= p <= 200 + 1e-6 for p in places)
    assert places == sorted(places, reverse=is_upward)


@given(values, st.integers(3, 8))
def test_ticks_lie_within_the_axis_and_are_few_and_distinct(drawn, most):
    found = scale(drawn, 0.0, 100.0)
    ticks = found.ticks(most)
    assert len(ticks) <= 3 * most
    assert all(found.holds(v) for v, _ in ticks)
    assert [v for v, _ in ticks] == sorted({v for v, _ in ticks})


@pytest.mark.parametrize(
    ("drawn", "texts"),
    [
        ([96.6, 99.7], ["97", "98", "99"]),
        ([0.015, 0.0275], ["0.0150", "0.0175", "0.0200", "0.0225", "0.0250", "0.0275"]),
        ([0.0, 4.9], ["0", "1", "2", "3", "4", "5"]),
        ([-1.0, 1.0], ["−1.0", "−0.5", "0.0", "0.5", "1.0"]),
    ],
)
def test_ticks_are_written_with_the_decimals_that_they_need(drawn, texts):
    assert [text for _, text in scale(drawn, 0.0, 1.0).ticks(6)] == texts


def test_a_wide_range_is_logarithmic():
    found = scale([1.0, 1000.0], 0.0, 300.0)
    assert found.is_log
    assert found.at(math.sqrt(1000)) == pytest.approx(150)
    assert {1.0, 10.0, 100.0, 1000.0} <= {v for v, _ in found.ticks(6)}


def test_a_limit_that_is_near_is_within_the_axis_and_a_far_one_is_not():
    assert scale([1.0, 2.0], 0.0, 1.0, near=[3.0]).holds(3.0)
    assert not scale([1.0, 2.0], 0.0, 1.0, near=[30.0]).holds(30.0)


@pytest.mark.parametrize(
    ("drawn", "texts"),
    [
        ([1.0], ["1"]),
        ([0.0, 13.0], ["0", "5", "10"]),
        ([1.0, 3.0], ["1", "2", "3"]),
        ([0.0, 900.0], ["0", "200", "400", "600", "800"]),
    ],
)
def test_counts_are_whole(drawn, texts):
    assert [text for _, text in scale(drawn, 0.0, 1.0).ticks(6, are_whole=True)] == texts
