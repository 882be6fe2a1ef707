import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error

from evaluators.task.metrics.numbers.mase import MASE
from evaluators.task.statistics.scores import value_of

rng = np.random.default_rng(0)


def test_equals_the_scaled_errors_of_scikit_learn():
    outputs, labels = rng.standard_normal((2, 40, 3, 2)).astype(np.float32)
    errors = rng.random(6) + 0.5
    metric = MASE(errors)
    each = mean_absolute_error(labels.reshape(40, 6), outputs.reshape(40, 6), multioutput="raw_values")
    assert value_of(metric, metric.per_example(outputs, labels)) == pytest.approx((each / errors).mean())


def test_integer_weights_equal_repeated_examples():
    outputs, labels = rng.standard_normal((2, 20, 4)).astype(np.float32)
    metric, weights = MASE(np.ones(4)), rng.integers(0, 3, 20)
    scores = metric.per_example(outputs, labels)
    repeated = metric.per_example(np.repeat(outputs, weights, axis=0), np.repeat(labels, weights, axis=0))
    assert np.average(scores, weights=weights) == pytest.approx(repeated.mean())
