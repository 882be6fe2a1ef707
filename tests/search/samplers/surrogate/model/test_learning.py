"""The models of one study: what is kept between the generations of a proposal, and how many models are asked."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.samplers.surrogate.model import learning
from search.samplers.surrogate.model.encoding import Encoding
from search.samplers.surrogate.model.gaussian_process import Rows, conditioned
from search.samplers.surrogate.model.learning import Learner, rows_of
from search.samplers.surrogate.model.targets import LogDrop, Plain, Shortfall

CANDIDATES = [dict(zip(("b1", "b2", "b3", "b4"), values, strict=True)) for values in product("xyz", repeat=4)]
ENCODING = Encoding(CANDIDATES)
POINTS = ENCODING.points(CANDIDATES)
NONE = POINTS[:0]


def rows(n, seed=0):
    rng = np.random.default_rng(seed)
    at = rng.integers(len(POINTS), size=n)
    return Rows(POINTS[at], POINTS[at].sum(axis=1) - 4 + rng.normal(0, 0.1, n), np.zeros(n))


def test_models_are_conditioned_once_on_the_same_rows(monkeypatch):
    calls = []

    def counted(*given):
        calls.append(given)
        return conditioned(*given)

    monkeypatch.setattr(learning, "conditioned", counted)
    learner, some = Learner(ENCODING), rows(12)
    first = learner.posterior_of(0, some, POINTS, NONE)
    again = learner.posterior_of(0, Rows(some.points.copy(), some.values, some.noise), POINTS, NONE)
    np.testing.assert_array_equal(first.mean, again.mean)
    assert len(calls) == 2  # with counts and without
    learner.posterior_of(0, Rows(some.points, some.values + 1, some.noise), POINTS, NONE)
    learner.posterior_of(0, some, POINTS, POINTS[:1])
    assert len(calls) == 6


@pytest.mark.parametrize(("n", "alone"), [(60, False), (150, True)])
def test_with_many_rows_the_more_probable_model_is_enough(n, alone):
    learner, some = Learner(ENCODING), rows(n)
    found = learner.posterior_of(0, some, POINTS, NONE)
    models = learner._conditioned(0, some, NONE)
    best = max(models, key=lambda model: model.log_likelihood)(POINTS)
    assert len(models) == 2
    assert np.array_equal(found.mean, best.mean) == alone


VALUES = st.lists(st.floats(-100, 100), min_size=1, max_size=12)


@given(VALUES, st.lists(st.floats(0, 50), min_size=12, max_size=12))
def test_errors_that_reach_beyond_the_best_value_are_finite(values, errors):
    """As those of trials that were stopped early, of which no value is exact."""
    values, errors = np.array(values), np.array(errors[: len(values)])
    points = np.zeros((len(values), 1))
    for target in (Shortfall.of(values), LogDrop.of(values, 100.0), Plain.of(values)):
        found = rows_of(target, points, values, errors)
        assert np.isfinite(found.values).all()
        assert np.isfinite(found.noise).all()
        assert (found.noise >= 0).all()


def test_an_error_is_that_of_both_sides_unless_one_is_out_of_reach():
    target = Shortfall.of(np.array([0.0, 1.0, 2.0]))  # ends at 3
    found = rows_of(target, np.zeros((2, 1)), np.array([0.0, 2.0]), np.array([1.0, 1.5]))
    up, at, down = (target(np.array([v]))[0] for v in (1.0, 0.0, -1.0))
    assert np.isclose(found.noise[0], ((up - down) / 2) ** 2)
    at, down = (target(np.array([v]))[0] for v in (2.0, 0.5))
    assert np.isclose(found.noise[1], (at - down) ** 2)
