"""RMSE, MAE and R2 against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from evaluators.task.metrics.numbers.mae import MAE
from evaluators.task.metrics.numbers.r2 import R2
from evaluators.task.metrics.numbers.rmse import RMSE
from evaluators.task.statistics.scores import statistics_of, value_of


@given(seed=st.integers(0, 10_000), k=st.integers(1, 4), offset=st.sampled_from([0.0, 100.0]))
def test_values_equal_scikit_learn(seed, k, offset):
    rng = np.random.default_rng(seed)
    labels = (rng.normal(size=(30, k)) + offset).astype(np.float32)
    outputs = (labels + rng.normal(0, 0.5, (30, k))).astype(np.float32)
    truth = np.sqrt(np.mean((outputs.astype(float) - labels) ** 2))
    assert value_of(RMSE("m"), statistics_of(RMSE("m"), outputs, labels)) == pytest.approx(truth)
    if k == 1:
        assert truth == pytest.approx(root_mean_squared_error(labels, outputs), rel=1e-5)
    assert value_of(MAE(), statistics_of(MAE(), outputs, labels)) == pytest.approx(
        mean_absolute_error(labels, outputs), rel=1e-5
    )
    assert value_of(R2(), statistics_of(R2(), outputs, labels)) == pytest.approx(
        100 * r2_score(labels, outputs), rel=1e-4
    )


@pytest.mark.parametrize("metric", [RMSE(), R2()])
def test_integer_weights_equal_repeated_examples(metric):
    rng = np.random.default_rng(0)
    labels = rng.normal(size=(20, 2))
    statistics = metric.statistics((labels + rng.normal(size=(20, 2))).astype(np.float32), labels)
    times = rng.integers(0, 4, 20)
    repeated = np.repeat(statistics, times, axis=0)
    assert metric.pooled(statistics, times.astype(float)) == pytest.approx(
        metric.pooled(repeated, np.ones(len(repeated)))
    )


def test_r2_of_equal_labels_has_no_value():
    with np.errstate(all="ignore"):
        assert np.isnan(
            R2().pooled(R2().statistics(np.zeros((5, 1), np.float32), np.ones((5, 1))), np.ones(5))
        )
