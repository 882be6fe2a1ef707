"""Resampled values of metrics of every kind, and what the judge of a pooled metric computes once."""

import numpy as np

from evaluators.metric import PooledMetric
from evaluators.task.metrics.numbers.rmse import RMSE
from evaluators.task.statistics.bootstrap import resampled_values
from evaluators.task.statistics.scores import Judge


class _Range(PooledMetric):
    name = "range"

    def __init__(self) -> None:
        self.n_calls = 0

    def pooled(self, statistics, weights):
        self.n_calls += 1
        return float(np.ptp(statistics[weights > 0]))


class _NotInherited:
    name, unit, scale = "mean", "", 1.0

    def pooled(self, statistics, weights):
        return float(np.average(statistics, weights=weights))


def test_values_are_those_of_each_row_of_weights():
    statistics = np.random.default_rng(0).random(30)
    metric = _Range()
    values = resampled_values(metric, statistics, 50)
    assert values.shape == (50,)
    assert metric.n_calls == 50
    assert (values <= np.ptp(statistics)).all()
    means = resampled_values(_NotInherited(), statistics, 50)
    assert abs(means.mean() - statistics.mean()) < 4 * statistics.std() / np.sqrt(30)


def test_sums_are_resampled_together():
    metric = RMSE("")
    statistics = metric.statistics(np.arange(6.0)[:, None], np.zeros((6, 1)))
    weights = np.array([[1, 1, 1, 1, 1, 1], [0, 0, 0, 3, 0, 0.0]])
    values = metric.pooled_each(statistics, weights)
    assert values.tolist() == [metric.pooled(statistics, row) for row in weights]
    assert values[1] == 3


def test_value_and_drop_resample_a_model_once():
    metric = _Range()
    reference, statistics = np.random.default_rng(0).random((2, 30))
    judge = Judge(metric, reference, 0.95, 40)
    judge.value(statistics)
    judge.drop(statistics)
    assert metric.n_calls == 2 * 40 + 3  # the model and the reference; and three values of all examples
    other = Judge(metric, reference, 0.95, 40)
    assert other.drop(statistics) == judge.drop(statistics)
    assert other.value(statistics) == judge.value(statistics)
    assert other.value(reference) == judge.value(reference)
