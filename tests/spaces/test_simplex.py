"""Weights that sum to 1 as the values of a knob."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.errors import SpaceError
from spaces.knob_spec import KnobSpec
from spaces.simplex import simplex
from spaces.space_config import read_space

SPEC = KnobSpec("merge_weights", (), "weights", shares=True)


@given(n=st.integers(2, 5), n_steps=st.integers(1, 12))
def test_all_points_and_no_others(n, n_steps):
    points = simplex(n, 1 / n_steps)
    assert len(set(points)) == len(points) == comb(n_steps + n - 1, n - 1)
    assert list(points) == sorted(points)
    for point in points:
        assert SPEC.problem(point) is None
        assert sum(point) == pytest.approx(1)
        assert np.allclose(np.array(point) * n_steps, np.round(np.array(point) * n_steps))


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 4))
def test_candidates_always_sum_to_one(seed, n):
    space = read_space({"recover": {"merge_weights": {"simplex": n, "step": 0.1}}})
    (weights,) = space.sample(np.random.default_rng(seed)).values()
    assert len(weights) == n
    assert min(weights) >= 0
    assert sum(weights) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"simplex": 1}, "at least 2, not 1"),
        ({"simplex": True}, "at least 2, not True"),
        ({"simplex": 2, "step": 0.3}, "must divide 1, e.g. 0.1, not 0.3"),
        ({"simplex": 2, "step": 0}, "must divide 1"),
        ({"simplex": 2, "step": -0.5}, "must divide 1"),
        ({"simplex": 9, "step": 0.05}, "more than 10,000"),
        ({"simplex": 2, "choices": [1]}, "exactly one of"),
    ],
)
def test_wrong_simplexes_are_refused(node, message):
    with pytest.raises(SpaceError, match=message):
        read_space({"recover": {"merge_weights": node}})


@pytest.mark.parametrize("value", [(0.5, 0.4), (1.5, -0.5), (True, 0.0), ("1",), 1.0, (0.5, None)])
def test_a_knob_of_shares_takes_nothing_else(value):
    assert "sum to 1" in SPEC.problem(value)


@pytest.mark.parametrize("value", [(), (1,), (0.25, 0.75), (1.0, 0.0, 0.0)])
def test_a_knob_of_shares(value):
    assert SPEC.problem(value) is None
