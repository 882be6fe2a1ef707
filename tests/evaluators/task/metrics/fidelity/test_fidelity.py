"""How close outputs stay to those that are the labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evaluators.task.metrics.fidelity.of_classes import FidelityOfClasses
from evaluators.task.metrics.fidelity.of_values import FidelityOfValues
from evaluators.task.statistics.scores import statistics_of, value_of
from spaces.errors import EvaluationError

VALUES = arrays(np.float32, (6, 3), elements=st.floats(-100, 100, width=32))


def value(metric, outputs, labels):
    return value_of(metric, statistics_of(metric, outputs, labels))


def test_shares_of_classes_by_hand():
    labels = np.array([0, 2, 1, 1])
    outputs = np.eye(3, dtype=np.float32)[[0, 2, 1, 0]]
    assert value(FidelityOfClasses(), outputs, labels) == 75
    outputs[1, 0] = np.nan
    assert value(FidelityOfClasses(), outputs, labels) == 50


def test_shares_of_positions_are_means_of_their_example():
    labels = np.zeros((2, 2, 2), np.int64)
    outputs = np.zeros((2, 3, 2, 2), np.float32)
    outputs[0, 1, 0, 0] = 1
    assert FidelityOfClasses().per_example(outputs, labels).tolist() == [0.75, 1.0]


def test_a_hundredth_of_the_variance_is_20_db():
    rng = np.random.default_rng(0)
    labels = rng.normal(3, 2, (4000, 5)).astype(np.float32)
    outputs = labels + rng.normal(0, 0.2, labels.shape).astype(np.float32)
    assert value(FidelityOfValues(), outputs, labels) == pytest.approx(99.0, abs=0.05)


def test_an_output_that_hardly_varies_does_not_rule():
    labels = np.stack([np.linspace(-1, 1, 50), np.full(50, 1e-4)], axis=1)
    labels[0, 1] = 0
    outputs = labels.copy()
    outputs[:, 1] = 0.001
    assert value(FidelityOfValues(), outputs, labels) > 99.99


@given(VALUES, VALUES)
def test_equal_outputs_have_100_and_others_less(labels, outputs):
    metric, weights = FidelityOfValues(), np.ones(len(labels))
    whole = metric.pooled(metric.statistics(labels, labels), weights)
    other = metric.pooled(metric.statistics(outputs, labels), weights)
    assert np.isnan(whole) == np.isnan(other)
    assert np.isnan(whole) or (whole == 1 and other <= 1)


def test_outputs_that_do_not_vary_have_no_value():
    with pytest.raises(EvaluationError, match="the metric fidelity has no value"):
        value(FidelityOfValues(), np.ones((4, 2)), np.ones((4, 2)))
