import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from search.samplers.surrogate.model.targets import Excess, LogDrop, NormalScores, Shortfall

VALUES = st.lists(st.floats(-100, 100), min_size=1, max_size=30)


def assert_same_order(scores, values):
    assert np.isfinite(scores).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(scores[order]) >= 0).all()


@given(VALUES)
def test_normal_scores_keep_the_order(values):
    assert_same_order(NormalScores.of(np.array(values))(np.array(values)), values)


@given(VALUES, st.floats(-100, 100))
@example([0.0, -5e-324, -5e-324], 0.0)
def test_log_drops_keep_the_order(values, baseline):
    assert_same_order(LogDrop.of(np.array(values), baseline)(np.array(values)), values)


def test_log_drops_tell_good_candidates_apart_and_collapses_alike():
    scores = LogDrop.of(np.array([91.0, 90.0, 89.0, 80.0, 10.0, 5.0]), 92.0)(
        np.array([91.0, 90.0, 10.0, 9.0])
    )
    assert scores[0] - scores[1] > 10 * (scores[2] - scores[3])


@given(VALUES)
@example([0.0, 1.0, 2e-311])
def test_excess_keeps_the_sign(values):
    excess = Excess.of(np.array(values))(np.array(values))
    assert ((excess > 0) <= (np.array(values) > 0)).all()


@given(VALUES)
def test_shortfalls_keep_the_order_and_can_be_inverted(values):
    given = np.array(values)
    scale = Shortfall.of(given)
    assert_same_order(scale(given), values)
    np.testing.assert_allclose(scale.inverse(scale(given)), given, atol=1e-6 * max(1.0, np.ptp(given)))


def test_the_slope_of_shortfalls_is_their_derivative():
    scale = Shortfall.of(np.array([91.0, 90.0, 60.0, 10.0]))
    at, step = np.array([91.0, 70.0, 10.0]), 1e-5
    slopes = (scale(at + step) - scale(at - step)) / (2 * step)
    np.testing.assert_allclose(np.exp(scale.log_slope(at)), slopes, rtol=1e-5)
    assert slopes[0] > 5 * slopes[2]
