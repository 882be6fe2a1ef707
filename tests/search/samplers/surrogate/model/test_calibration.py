import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.samplers.surrogate.model.calibration import (
    Calibration,
    Collapses,
    normal_log_probabilities,
    predict_each_other,
    quantiles,
)

VALUES = st.lists(st.floats(-100, 100), min_size=1, max_size=20).map(np.array)


@given(VALUES, VALUES)
def test_quantiles_are_shares_of_better_values(values, among):
    found = quantiles(values, among)
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found[np.argsort(values, kind="stable")]) <= 0).all()


def test_ties_count_half():
    np.testing.assert_allclose(
        quantiles(np.array([3.0, 2.0, 0.0]), np.array([1.0, 2.0, 2.0, 3.0])), [0.125, 0.5, 1.0]
    )


@given(st.lists(VALUES, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_no_order_is_certain(tasks, random):
    """One collapsed candidate must not refute what all others agree with."""
    shuffled = [np.array(random.sample(list(v), len(v))) for v in tasks]
    chances = Calibration.of([quantiles(v, v) for v in shuffled], tasks).in_order
    assert ((chances >= 0.05) & (chances <= 0.95)).all()


def test_the_predicted_order_is_more_probable_the_further_apart_the_predictions():
    rng = np.random.default_rng(0)
    values = [rng.normal(size=60) for _ in range(3)]
    predicted = [quantiles(v + rng.normal(0, 0.5, 60), v) for v in values]
    chances = Calibration.of(predicted, values).in_order
    assert (np.diff(chances) > 0).all()
    assert chances[0] > 0.5
    assert chances[-1] > 0.9


@pytest.mark.parametrize("values", [np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 1.0])])
def test_orders_are_opposite_seen_from_both_sides_and_ties_say_nothing(values):
    logs = Calibration(np.full(5, 0.8)).log_probabilities(np.array([0.1, 0.5, 0.9]), values)
    np.testing.assert_allclose(logs, logs.T)
    assert (np.diag(logs) == 0).all()
    if len(set(values)) == 1:
        assert (logs == 0).all()
    else:
        np.testing.assert_allclose(np.exp(logs[[0, 0, 1], [1, 2, 2]]), [0.8, 0.8, 0.2])


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=20))
def test_no_collapse_is_impossible(trials):
    predicted, collapsed = (np.array(column, float) for column in zip(*trials, strict=True))
    ratios = Collapses(0.5, np.array([0.0, 0.2, 0.5, 0.8, 1.0])).log_ratios(predicted, collapsed)
    assert (ratios >= np.log(0.1) - 1e-9).all()


def test_collapses_are_counted_by_what_is_predicted():
    predicted = np.linspace(0, 1, 50)
    drops = np.where(predicted > 0.7, 40.0, 1.0)
    found = Collapses.of(20.0, [predicted, predicted], [drops, drops])
    assert found.chances[:4].max() < 0.1
    assert found.chances[4] > 0.9
    foreseen, unforeseen = found.log_ratios(np.array([0.9, 0.0]), np.array([40.0, 40.0]))
    assert foreseen > 0 > unforeseen


def test_normal_predictions_give_bounded_probabilities():
    logs = normal_log_probabilities(np.array([0.0, 5.0, -5.0]), np.full(3, 0.1), np.array([0.0, 5.0, 5.0]))
    assert np.exp(logs[1, 0]) == pytest.approx(0.95)
    assert np.exp(logs[2, 0]) == pytest.approx(0.05)
    assert logs[2, 1] == 0


def test_tasks_that_agree_predict_each_other_and_shuffled_ones_do_not():
    rng = np.random.default_rng(1)
    values = [rng.normal(size=50) for _ in range(3)]
    assert predict_each_other([v + rng.normal(0, 0.5, 50) for v in values], values)
    assert not predict_each_other([rng.permutation(v) for v in values], values)
    assert not predict_each_other([-v for v in values], values)
    assert not predict_each_other([np.zeros(50)] * 3, values)
    few = [np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])]
    assert predict_each_other(few, few[::-1])  # too few to be sure, but they agree
    assert predict_each_other([], [])  # a single task: nothing to tell by
