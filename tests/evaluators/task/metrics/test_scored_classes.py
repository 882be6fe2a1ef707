"""AUC, average precision and F1 of one or several yes-or-no classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from evaluators.task.metrics.classes.auc import AUC
from evaluators.task.metrics.classes.average_precision import AveragePrecision
from evaluators.task.metrics.classes.f1 import F1
from evaluators.task.metrics.classes.same_decisions import SameDecisions
from evaluators.task.statistics.scores import value_of

SKLEARN = {"auc": roc_auc_score, "average_precision": average_precision_score}


def examples(seed, n=40, k=1, levels=None):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, k)) < 0.4).astype(np.float32)
    labels[:2] = [[0] * k, [1] * k]
    scores = labels + rng.normal(0, 1.2, (n, k))
    if levels:
        scores = np.round(scores * levels) / levels
    return scores.astype(np.float32), labels


@pytest.mark.parametrize("metric", [AUC(), AveragePrecision()])
@given(seed=st.integers(0, 10_000), levels=st.sampled_from([None, 1, 3]), k=st.integers(1, 3))
def test_value_and_resamples_equal_scikit_learn(metric, seed, levels, k):
    scores, labels = examples(seed, k=k, levels=levels)
    rng = np.random.default_rng(seed)
    statistics = metric.statistics(scores, labels)
    wanted = np.mean([SKLEARN[metric.name](labels[:, i], scores[:, i]) for i in range(k)])
    assert metric.pooled(statistics, np.ones(40)) == pytest.approx(wanted)
    weights = rng.integers(0, 4, (3, 40)).astype(float)
    weights[:, :2] += 1
    for row, found in zip(weights, metric.pooled_each(statistics, weights), strict=True):
        wanted = np.mean(
            [SKLEARN[metric.name](labels[:, i], scores[:, i], sample_weight=row) for i in range(k)]
        )
        assert found == pytest.approx(wanted)


@given(seed=st.integers(0, 10_000), k=st.integers(1, 3))
def test_f1_equals_scikit_learn_and_weights_equal_repetition(seed, k):
    scores, labels = examples(seed, k=k)
    metric = F1()
    wanted = np.mean([f1_score(labels[:, i], scores[:, i] > 0) for i in range(k)])
    statistics = metric.statistics(scores, labels)
    assert metric.pooled(statistics, np.ones(40)) == pytest.approx(wanted)
    times = np.random.default_rng(seed).integers(0, 3, 40)
    times[0] += 1
    times[1] += 1
    repeated = np.repeat(statistics, times, axis=0)
    assert metric.pooled(statistics, times.astype(float)) == pytest.approx(
        metric.pooled(repeated, np.ones(len(repeated)))
    )


def test_two_class_outputs_are_one_score():
    labels = np.array([0, 1, 1, 0], np.float32)
    two = np.array([[1, 0], [0, 3], [2, 2.5], [1, 1.2]], np.float32)
    one = (two[:, 1] - two[:, 0])[:, None]
    for metric in (AUC(), AveragePrecision(), F1()):
        assert value_of(metric, metric.statistics(two, labels)) == value_of(
            metric, metric.statistics(one, labels)
        )
    assert SameDecisions(two_classes=True).per_example(two, -two).tolist() == [0.0] * 4
    assert SameDecisions(0.5).per_example(one, one + 10).tolist() == [0.0, 1.0, 0.0, 0.0]


def test_a_class_with_one_label_only_does_not_count():
    scores, labels = examples(0, k=2)
    labels[:, 1] = 1
    for metric in (AUC(), AveragePrecision()):
        one = metric.pooled(metric.statistics(scores[:, :1], labels[:, :1]), np.ones(40))
        assert metric.pooled(metric.statistics(scores, labels), np.ones(40)) == pytest.approx(one)
        assert np.isnan(metric.pooled(metric.statistics(scores[:, 1:], labels[:, 1:]), np.ones(40)))


@pytest.mark.parametrize("metric", [AUC(), AveragePrecision()])
def test_a_resample_without_an_example_of_a_kind_does_not_count(metric):
    labels = np.array([[1, 0], [0, 0], [0, 0]], np.float32)
    statistics = metric.statistics(labels - 0.5, labels)
    found = metric.pooled_each(statistics, np.array([[1.0, 1, 1], [0, 2, 1]]))
    np.testing.assert_array_equal(found, [1, np.nan])
    assert np.isnan(metric.pooled(metric.statistics(labels, labels * 0), np.ones(3)))
