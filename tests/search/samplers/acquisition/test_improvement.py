import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from search.record.hypervolume import hypervolume
from search.record.nondomination import non_dominated
from search.samplers.acquisition.boxes import not_dominated
from search.samplers.acquisition.improvement import (
    _sampled,
    baseline_reference,
    constrained_improvement,
    expected_excess,
    expected_improvement,
    oriented,
    reference_point,
)


def volume(front, reference):
    return hypervolume(-np.asarray(front), -np.asarray(reference))


def brute_force(mean, std, front, reference, n=4000):
    """Returns mean and standard error of the volume that sampled outcomes add."""
    before = volume(front, reference)
    drawn = mean + std * np.random.default_rng(0).standard_normal((n, len(mean)))
    gains = np.array([volume(np.vstack([front, y]), reference) - before for y in drawn])
    return gains.mean(), gains.std() / np.sqrt(n)


@st.composite
def fronts(draw, max_d=4, max_m=6):
    d = draw(st.integers(1, max_d))
    m = draw(st.integers(0, max_m))
    return draw(arrays(np.float64, (m, d), elements=st.integers(-1, 6).map(float)))


# -- boxes -------------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(fronts(), st.integers(0, 2**32 - 1))
def test_boxes_are_disjoint_and_fill_the_non_dominated_region(front, seed):
    d = front.shape[1]
    reference = np.zeros(d)
    boxes = not_dominated(front, reference)
    points = np.random.default_rng(seed).uniform(-1, 8, size=(200, d))
    inside = ((boxes.low < points[:, None]) & (points[:, None] <= boxes.high)).all(axis=2).sum(axis=1)
    free = (points > reference).all(axis=1) & ~(front >= points[:, None]).all(axis=2).any(axis=1)
    assert (inside == free).all()
    assert (boxes.low < boxes.high).all()


@settings(max_examples=100, deadline=None)
@given(fronts(max_m=12))
def test_non_dominated_keeps_each_point_that_none_dominates_once(values):
    kept = values[non_dominated(values)]
    for value in values:
        beaten = ((values >= value).all(axis=1) & (values > value).any(axis=1)).any()
        assert (kept == value).all(axis=1).sum() == (not beaten)


def test_incomplete_rows_are_dominated():
    assert non_dominated(np.array([[np.nan, 9.0], [1.0, 1.0]])).tolist() == [False, True]
    assert non_dominated(np.empty((0, 2))).tolist() == []


def test_more_than_max_boxes_returns_none():
    front = np.random.default_rng(0).random((40, 4))
    assert not_dominated(front, np.zeros(4), max_boxes=10) is None


# -- the expectation -----------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(fronts(max_d=3, max_m=5), st.integers(0, 2**32 - 1), st.data())
def test_the_expectation_equals_that_of_sampled_outcomes(front, seed, data):
    d = front.shape[1]
    rng = np.random.default_rng(seed)
    uncertain = np.array(data.draw(st.lists(st.booleans(), min_size=d, max_size=d)))
    mean, std, reference = rng.uniform(-1, 7, d), rng.uniform(0.1, 2, d) * uncertain, np.zeros(d)
    found = expected_improvement(mean[None], std[None], front, reference, rng)[0]
    wanted, error = brute_force(mean, std, front, reference, 700 if uncertain.any() else 1)
    # 6 standard errors; a rare improvement may not have been sampled at all
    assert found == pytest.approx(wanted, abs=6 * error + 0.02, rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(fronts(), st.integers(0, 2**32 - 1))
def test_known_values_improve_by_the_volume_they_add(front, seed):
    rng = np.random.default_rng(seed)
    means = rng.uniform(-1, 7, (4, front.shape[1]))
    reference = np.zeros(front.shape[1])
    found = expected_improvement(means, np.zeros_like(means), front, reference, rng)
    before = volume(front, reference)
    wanted = [volume(np.vstack([front, mean]), reference) - before for mean in means]
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9)


def test_with_one_objective_the_hypervolume_improvement_is_expected_improvement():
    rng = np.random.default_rng(0)
    means, stds = rng.normal(size=(50, 1)), rng.uniform(0.1, 1, (50, 1))
    z = (means - 0.7) / stds
    plain = (stds * (z * norm.cdf(z) + norm.pdf(z)))[:, 0]
    front = np.array([[0.7], [0.2]])
    assert expected_improvement(means, stds, front, np.array([-9.0]), rng) == pytest.approx(plain, rel=1e-10)


@given(st.floats(-37, 5), st.floats(0.01, 100))
def test_the_excess_does_not_cancel_far_below_the_threshold(z, std):
    found = expected_excess(np.array(z * std), np.array(std), np.array(0.0))
    # Mills' ratio bounds: Gordon 1941
    density = std * norm.pdf(z)
    if z < -2:
        assert density / (z**2 + 3) <= found <= density / z**2
    else:
        assert found == pytest.approx(std * (z * norm.cdf(z) + norm.pdf(z)), rel=1e-9)


def test_a_long_front_on_many_axes_is_sampled_and_agrees():
    rng = np.random.default_rng(1)
    front = rng.random((20, 4))
    means, stds = rng.random((60, 4)), np.full((60, 4), 0.1)
    stds[:, 1:3] = 0
    exact = expected_improvement(means, stds, front, np.zeros(4), rng)
    sampled = _sampled(means, stds, front, np.zeros(4), rng, 4096)
    assert np.corrcoef(exact, sampled)[0, 1] > 0.995
    assert sampled.sum() == pytest.approx(exact.sum(), rel=0.03)


def test_a_huge_problem_is_sampled():
    rng = np.random.default_rng(1)
    points = np.abs(rng.normal(size=(60, 6)))
    front = points / np.linalg.norm(points, axis=1, keepdims=True)
    means = rng.random((5000, 6))
    gains = expected_improvement(means, np.full(means.shape, 0.1), front, np.zeros(6), rng, 64)
    assert gains.shape == (5000,)
    assert (gains >= 0).all()
    assert gains.max() > 0


# -- constraints ---------------------------------------------------------------------------------------------------------


def test_improvement_is_multiplied_by_the_probability_of_feasibility():
    rng = np.random.default_rng(0)
    means, stds = np.array([[2.0, 2.0], [3.0, 3.0]]), np.full((2, 2), 0.1)
    front, reference = np.array([[1.0, 1.0]]), np.zeros(2)
    gains = constrained_improvement(means, stds, front, reference, np.array([1.0, 0.01]), rng)
    assert gains[0] > gains[1] > 0
    assert constrained_improvement(means, stds, front, reference, np.ones(2), rng).argmax() == 1


def test_without_a_feasible_result_the_probability_decides():
    rng = np.random.default_rng(0)
    means, stds = np.array([[1.0, 1.0], [9.0, 9.0], [8.0, 8.0]]), np.zeros((3, 2))
    scores = constrained_improvement(
        means, stds, np.empty((0, 2)), np.zeros(2), np.array([0.9, 0.5, 0.5]), rng
    )
    assert scores.argsort().tolist() == [2, 1, 0]  # likely first; then the larger improvement


# -- helpers -------------------------------------------------------------------------------------------------------------


def test_minimised_axes_are_negated():
    assert oriented(np.array([[1.0, 2.0]]), ["maximize", "minimize"]).tolist() == [[1.0, -2.0]]


def test_the_reference_point_is_below_the_front_by_a_share_of_its_range():
    values = np.array([[0.0, 10.0], [10.0, 0.0], [-90.0, -90.0], [np.nan, 50.0]])
    assert reference_point(values) == pytest.approx([-1.0, -1.0])
    # a single point on the front: the range of all
    assert reference_point(np.array([[5.0, 5.0], [3.0, 4.0]])) == pytest.approx([4.8, 4.9])
    assert reference_point(np.array([[5.0, 0.0]])) == pytest.approx([4.5, -0.1])
    # values that differ by rounding errors count as equal
    nearly = np.array([[9.0, 0.3], [5.0, 0.1 + 0.2], [5.0, -0.7]])
    assert reference_point(nearly)[1] == pytest.approx(0.2)
    with pytest.raises(ValueError, match="at least one row"):
        reference_point(np.array([[np.nan]]))


def test_the_reference_point_follows_from_the_baseline():
    directions = ["maximize", "minimize", "minimize"]
    known_reference = baseline_reference([80.0, 10.0, None], directions)
    assert known_reference == pytest.approx([72.0, -10.0, np.nan], nan_ok=True)
    values = np.array([[79.0, -4.0, -1.0], [75.0, -2.0, -2.0], [10.0, -1.0, -9.0]])
    # the last axis: from the rows above the known coordinates
    assert reference_point(values, known_reference=known_reference) == pytest.approx([72.0, -10.0, -2.1])
    # no row is above the known coordinates: as if they were unknown
    assert reference_point(values - [70.0, 0, 0], known_reference=known_reference) == pytest.approx(
        reference_point(values - [70.0, 0, 0])
    )


@pytest.mark.slow
@pytest.mark.parametrize(("n_uncertain", "limit_s"), [(1, 0.1), (3, 0.5)])
def test_it_is_fast(n_uncertain, limit_s):
    rng = np.random.default_rng(0)
    points = np.abs(rng.normal(size=(50, 3)))
    front = points / np.linalg.norm(points, axis=1, keepdims=True)
    means, stds = rng.random((5000, 3)), np.zeros((5000, 3))
    stds[:, :n_uncertain] = 0.1
    seconds = []
    for _ in range(5):
        began = time.process_time()
        constrained_improvement(means, stds, front, np.zeros(3), np.ones(5000), rng)
        seconds.append(time.process_time() - began)
    assert min(seconds) < limit_s
