import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from evaluators.task.metrics.anomaly.reconstruction import ReconstructionAUC
from evaluators.task.statistics.bootstrap import resampled_values
from evaluators.task.statistics.scores import Judge, statistics_of, value_of


def examples(n_clips=30, windows=4, alone=False):
    """Outputs and labels of windows; of the clips a third are anomalies, whose errors are larger."""
    rng = np.random.default_rng(0)
    clips = np.repeat(np.arange(n_clips), windows)
    flags = (clips % 3 == 0).astype(float)
    inputs = rng.normal(size=(len(clips), 6)).astype(np.float32)
    spread = (0.5 + 0.2 * flags + 0.3 * rng.random(n_clips)[clips])[:, None]
    outputs = inputs + (spread * rng.normal(size=inputs.shape)).astype(np.float32)
    heads = np.column_stack([flags, np.full(len(clips), -1) if alone else clips])
    return outputs, np.concatenate([heads, inputs], axis=1, dtype=np.float32)


def by_hand(outputs, labels, **more):
    errors = ((outputs - labels[:, 2:]).astype(float) ** 2).mean(1)
    if labels[0, 1] < 0:
        return roc_auc_score(labels[:, 0], errors, **more)
    clips = np.unique(labels[:, 1])
    means = [errors[labels[:, 1] == clip].mean() for clip in clips]
    return roc_auc_score([labels[labels[:, 1] == clip, 0][0] for clip in clips], means, **more)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("more", [{}, {"max_fpr": 0.1}])
def test_equals_scikit_learn(alone, more):
    outputs, labels = examples(alone=alone)
    metric = ReconstructionAUC(**more)
    value = value_of(metric, statistics_of(metric, outputs, labels))
    assert value == pytest.approx(100 * by_hand(outputs, labels, **more))
    assert 50 < value < 100


@pytest.mark.parametrize("alone", [True, False])
def test_integer_weights_equal_repeated_examples(alone):
    outputs, labels = examples(alone=alone)
    metric = ReconstructionAUC()
    found = metric.statistics(outputs, labels)
    units = metric.clusters(found)
    counts = np.random.default_rng(1).integers(0, 3, units.max() + 1)
    weights = counts[units]
    rows = np.repeat(np.arange(len(weights)), weights)
    repeated = labels[rows].copy()
    if not alone:  # a clip that is repeated is another clip
        copy = np.concatenate([np.arange(weight) for weight in weights])
        repeated[:, 1] += 1000 * copy
    wanted = metric.pooled(metric.statistics(outputs[rows], repeated), np.ones(len(rows)))
    assert metric.pooled(found, weights.astype(float)) == pytest.approx(wanted)


def test_the_windows_of_a_clip_are_drawn_together():
    outputs, labels = examples(n_clips=12, windows=50)
    metric = ReconstructionAUC()
    found = metric.statistics(outputs, labels)
    values = resampled_values(metric, found, 200)
    one_each = np.stack([found[found[:, 1 + 1] == clip].mean(0) for clip in range(12)])
    of_clips = resampled_values(metric, one_each, 200)
    np.testing.assert_allclose(values, of_clips)  # 50 windows do not narrow the interval


def test_one_kind_has_no_value():
    outputs, labels = examples()
    normal = labels[:, 0] == 0
    found = ReconstructionAUC().statistics(outputs[normal], labels[normal])
    assert np.isnan(ReconstructionAUC().pooled(found, np.ones(len(found))))


def test_a_drop_is_paired():
    outputs, labels = examples()
    metric = ReconstructionAUC()
    noisy = outputs + np.random.default_rng(2).normal(0, 0.5, outputs.shape).astype(np.float32)
    judge = Judge(metric, metric.statistics(outputs, labels), 0.95, 100)
    assert judge.drop(metric.statistics(outputs, labels)) == (0.0, None)
    worse = judge.drop(metric.statistics(noisy, labels))
    assert worse.interval.low <= worse.value <= worse.interval.high


@pytest.mark.parametrize("max_fpr", [None, 0.05, 0.3])
def test_weights_and_ties_as_in_scikit_learn(max_fpr):
    rng = np.random.default_rng(4)
    flags = np.arange(60) % 4 == 0
    errors = rng.integers(0, 9, 60) + 3.0 * flags
    statistics = np.column_stack([errors, flags, np.full(60, -1)])
    for weights in (np.ones(60), rng.integers(0, 4, 60).astype(float), rng.random(60)):
        wanted = roc_auc_score(flags, errors, sample_weight=weights, max_fpr=max_fpr)
        assert ReconstructionAUC(max_fpr).pooled(statistics, weights) == pytest.approx(wanted, rel=1e-12)
