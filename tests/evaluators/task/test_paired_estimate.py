"""Estimates of a metric on a whole split from the first examples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.task.metrics.classes.auc import AUC
from evaluators.task.metrics.top1 import Top1
from evaluators.task.paired_estimate import PairedReference, paired_drop


@pytest.fixture
def reference():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 2000)
    outputs = rng.standard_normal((2000, 4)) + 1.5 * np.eye(4)[labels]
    return PairedReference(Top1(), outputs.astype(np.float32), labels)


def worse(reference, spread, seed=1):
    rng = np.random.default_rng(seed)
    noise = spread * rng.standard_normal(reference.outputs.shape)
    return (reference.outputs + noise).astype(np.float32)


def test_on_the_whole_split_the_estimate_is_exact(reference):
    outputs = worse(reference, 1.0)
    estimate = reference.estimate(outputs)
    scores = Top1().per_example(outputs, reference.labels)
    assert estimate.drop == pytest.approx(100 * (reference.scores.mean() - scores.mean()))
    assert estimate.drop_error == 0


def test_the_standard_error_matches_the_errors_of_estimates(reference):
    whole = reference.estimate(worse(reference, 1.0)).drop
    order = [np.random.default_rng(s).permutation(2000) for s in range(40)]
    outputs = worse(reference, 1.0)
    misses = []
    for rows in order:
        shuffled = PairedReference(Top1(), reference.outputs[rows], reference.labels[rows])
        estimate = shuffled.estimate(outputs[rows][:250])
        misses.append((estimate.drop - whole) / estimate.drop_error)
    assert 0.6 < np.std(misses) < 1.4


def test_the_float_model_itself_has_no_drop_but_an_error(reference):
    estimate = reference.estimate(reference.outputs[:64])
    assert estimate.drop == 0
    assert estimate.drop_error > 1  # 64 equal answers do not show that all are
    assert estimate.features["agreement"] == 100
    assert estimate.features["output_sqnr_db"] == 200
    assert estimate.features["minus_divergence"] == pytest.approx(0, abs=1e-9)
    assert estimate.features["resampled"] == pytest.approx(100 * reference.scores.mean())


def test_every_feature_decreases_with_more_noise(reference):
    low_noise, high_noise = (
        reference.estimate(worse(reference, 0.1)[:64]),
        reference.estimate(worse(reference, 2.0)[:64]),
    )
    for name, value in low_noise.features.items():
        assert value > high_noise.features[name], name


def test_resampling_varies_less_than_counting(reference):
    outputs = worse(reference, 0.7)
    estimates = []
    for seed in range(30):
        rows = np.random.default_rng(seed).permutation(2000)
        shuffled = PairedReference(Top1(), reference.outputs[rows], reference.labels[rows])
        estimates.append(shuffled.estimate(outputs[rows][:64]))
    whole = 100 * float(Top1().per_example(outputs, reference.labels).mean())
    assert np.std([x.features["resampled"] for x in estimates]) < 0.5 * np.std([x.drop for x in estimates])
    assert np.mean([x.features["resampled"] for x in estimates]) == pytest.approx(whole, abs=1.5)


def test_outputs_of_another_shape_have_no_features():
    reference = PairedReference(Top1(), np.zeros((8, 3), np.float32), np.zeros(8, np.int64))
    assert reference.estimate(np.zeros((4, 5), np.float32)).features == {}


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60),
    st.integers(0, 1000),
    st.booleans(),
)
def test_paired_drop_is_the_mean_difference_with_a_finite_error(pairs, more, binary):
    scores = np.array(pairs, np.float64) * (1.0 if binary else 0.5)
    drop, error = paired_drop(scores[:, 0], scores[:, 1], len(pairs) + more)
    assert drop == pytest.approx(np.mean(scores[:, 0] - scores[:, 1]))
    assert error >= 0
    assert (error == 0) == (more == 0) or not binary


def test_a_pooled_metric_has_a_finite_error_even_where_few_examples_give_it_no_value():
    labels = np.r_[np.zeros(10), np.arange(90) % 2].astype(np.float32)
    rng = np.random.default_rng(0)
    outputs = (labels[:, None] + rng.normal(0, 1, (100, 1))).astype(np.float32)
    reference = PairedReference(AUC(), outputs, labels, whole=True)
    few, many = (
        reference.estimate(outputs[:k] + rng.normal(0, 0.3, (k, 1)).astype(np.float32)) for k in (8, 50)
    )
    assert (few.drop, few.drop_error) == (0.0, 100.0)
    assert 0 < many.drop_error < 10
    assert "agreement" not in many.features
    again = reference.estimate(outputs[:50])
    assert again.drop == again.drop_error == 0.0
