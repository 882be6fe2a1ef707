import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.record.hypervolume import hypervolume
from search.samplers.acquisition.gain import Forecast, Forecasts, Gain, expected_gain, expected_volume_gain
from search.samplers.acquisition.improvement import expected_improvement


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_the_gain_equals_that_of_sampled_outcomes(seed, k):
    rng = np.random.default_rng(seed)
    means, stds, likely = rng.normal(0, 1, k), rng.uniform(0, 1, k), rng.uniform(0.2, 1, k)
    drawn = means + stds * rng.standard_normal((20_000, k))
    drawn[rng.random(drawn.shape) > likely] = -np.inf
    gains = np.maximum(drawn.max(axis=1) - 0.5, 0)
    found = expected_gain(means, stds, 0.5, k, likely)
    assert found.expected == pytest.approx(gains.mean(), abs=6 * gains.std() / np.sqrt(len(gains)) + 0.01)
    # a quantile is within the draws' own error of its probability
    assert (gains <= found.bound + 0.01).mean() > 0.95 - 0.01
    assert (gains < found.bound - 0.01).mean() < 0.95 + 0.01


def test_more_trials_gain_more():
    rng = np.random.default_rng(0)
    means, stds = rng.normal(size=50), np.full(50, 0.3)
    gains = [expected_gain(means, stds, 2.0, k) for k in (0, 1, 5, 20, 99)]
    assert [g.expected for g in gains] == sorted(g.expected for g in gains)
    assert [g.bound for g in gains] == sorted(g.bound for g in gains)
    assert gains[0] == Gain(0.0, 0.0)


def test_known_values_gain_their_difference():
    gain = expected_gain(np.array([3.0, 1.0]), np.zeros(2), 2.0, 2)
    assert (gain.expected, gain.bound) == pytest.approx((1.0, 1.0), abs=2e-3)
    assert expected_gain(np.array([2.0, 1.0]), np.zeros(2), 2.0, 2) == Gain(0.0, 0.0)
    assert expected_gain(np.array([2.0]), np.ones(1), -np.inf, 2).bound == np.inf


def test_the_volume_gain_agrees_with_the_expected_improvement():
    rng = np.random.default_rng(0)
    front, reference = np.array([[1.0, 2.0, 2.0], [2.0, 1.0, 1.5]]), np.zeros(3)
    means, stds = np.array([[1.5, 1.5, 1.8]]), np.array([[0.4, 0.0, 0.2]])
    gain = expected_volume_gain(means, stds, front, reference, 1, rng)
    exact = expected_improvement(means, stds, front, reference, rng)[0] / hypervolume(-front, -reference)
    assert gain.expected == pytest.approx(exact, rel=0.15)
    assert gain.bound > gain.expected


def test_the_same_gain_of_two_candidates_counts_once():
    rng = np.random.default_rng(0)
    front, reference = np.array([[1.0, 1.0]]), np.zeros(2)
    means = np.array([[2.0, 2.0], [2.0, 2.0]])
    gain = expected_volume_gain(means, np.zeros_like(means), front, reference, 2, rng)
    assert gain.expected == pytest.approx(3.0, rel=0.02)


def test_without_a_front_there_is_no_volume_gain():
    rng = np.random.default_rng(0)
    ones = np.ones((1, 2))
    assert expected_volume_gain(ones, ones, np.empty((0, 2)), np.zeros(2), 3, rng) is None
    assert expected_volume_gain(ones, ones, -ones, np.zeros(2), 3, rng) is None
    assert expected_volume_gain(ones[:0], ones[:0], ones, np.zeros(2), 3, rng) == Gain(0.0, 0.0)


def test_infeasible_candidates_add_nothing():
    rng = np.random.default_rng(0)
    means = np.array([[2.0, 2.0]])
    gain = expected_volume_gain(
        means, np.zeros_like(means), np.array([[1.0, 1.0]]), np.zeros(2), 1, rng, np.zeros(1)
    )
    assert gain == Gain(0.0, 0.0)


def test_a_sampler_with_the_method_forecasts():
    class Sampler:
        def forecast(self, study, k):
            return Forecast(k, Gain(0.0, 0.0))

    assert isinstance(Sampler(), Forecasts)
    assert not isinstance(object(), Forecasts)
