import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.errors import SpaceError
from spaces.knobs import Choices, Range

ranges = st.one_of(
    st.builds(
        lambda low, width, step: Range(low, low + width, step, integer=True),
        st.integers(-50, 50), st.integers(0, 40), st.none() | st.integers(1, 9),
    ),
    st.builds(
        lambda low, width, step: Range(low, low + width, step),
        st.floats(-5, 5), st.floats(0, 10), st.none() | st.floats(0.05, 3),
    ),
    st.builds(lambda low, factor: Range(low, low * factor, log=True), st.floats(1e-3, 1), st.floats(1, 1000)),
)  # fmt: skip


@given(ranges, st.integers(0, 2**32))
def test_a_draw_lies_in_the_range(domain, seed):
    value = domain.sample(np.random.default_rng(seed))
    assert value in domain
    assert -1e-9 <= domain.encode(value)[0] <= 1 + 1e-9


@given(ranges)
def test_size_is_the_number_of_values_of_a_finite_range(domain):
    if domain.size is None:
        with pytest.raises(SpaceError, match="continuous"):
            iter(domain)
        return
    listed = list(domain)
    assert len(listed) == len(set(listed)) == domain.size
    assert all(value in domain for value in listed)


def test_floats_with_a_step_are_exact():
    assert list(Range(0.1, 0.3, 0.1)) == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("value", [1, True, "a", 0.15, 0.4, math.nan, None])
def test_values_outside_a_stepped_float_range(value):
    assert value not in Range(0.1, 0.3, 0.1)


def test_one_hot_and_ordered_encodings():
    assert Choices(("a", "b")).encode("b") == [0.0, 1.0]
    assert Choices(("a", "b")).encode(None, active=False) == [0.0, 0.0]
    assert Choices((2, 4, 8), ordered=True).encode(4) == [0.5]
    assert math.isnan(Choices((2, 4), ordered=True).encode(None, active=False)[0])
    assert Choices((1, True)).encode(True) == [0.0, 1.0]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Choices(()), "at least one"),
        (lambda: Choices(("a", "a")), "twice"),
        (lambda: Range(2, 1), "low <= high"),
        (lambda: Range(0, math.inf), "low <= high"),
        (lambda: Range(0, 1, 0), "above 0"),
        (lambda: Range(0, 1, log=True), "low > 0"),
    ],
)
def test_invalid_domains_raise(make, text):
    with pytest.raises(SpaceError, match=text):
        make()
