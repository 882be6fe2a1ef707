import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from evaluators.task.metrics.segmentation import class_maps
from evaluators.task.metrics.segmentation.class_maps import ClassMaps
from evaluators.task.metrics.segmentation.overlap import Dice, MIoU
from evaluators.task.metrics.segmentation.pixels import PixelAccuracy, SamePixels
from evaluators.task.statistics.scores import statistics_of, value_of

N_CLASSES = 5
METRICS = [
    (MIoU, lambda y, p, w: jaccard_score(y, p, average="macro", sample_weight=w)),
    (Dice, lambda y, p, w: f1_score(y, p, average="macro", sample_weight=w)),
    (PixelAccuracy, lambda y, p, w: accuracy_score(y, p, sample_weight=w)),
]


def examples(n=12, absent=4):
    """Outputs and masks; the class `absent` neither occurs nor is it given, and a quarter of the positions is ignored."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, absent, (n, 7, 6))
    outputs = rng.normal(size=(n, N_CLASSES, 7, 6)).astype(np.float32)
    np.put_along_axis(outputs, labels[:, None], rng.normal(1.5, 1, (n, 1, 7, 6)), axis=1)
    outputs[:, absent:] = -9
    labels[rng.random(labels.shape) < 0.25] = -1
    return outputs, labels.astype(np.int16)


def flat(outputs, labels, weights):
    given, wanted = outputs.argmax(1).reshape(-1), labels.reshape(-1)
    each = np.repeat(weights, labels[0].size)
    return wanted[wanted >= 0], given[wanted >= 0], each[wanted >= 0]


@pytest.mark.parametrize(("metric", "library"), METRICS)
def test_equals_scikit_learn_with_weights_too(metric, library):
    outputs, labels = examples()
    made = metric(ClassMaps(N_CLASSES))
    found = statistics_of(made, outputs, labels)
    ones = np.ones(len(labels))
    assert value_of(made, found) == pytest.approx(100 * library(*flat(outputs, labels, ones)), rel=1e-12)
    weights = np.random.default_rng(0).integers(0, 4, len(labels)).astype(float)
    assert made.pooled(found, weights) == pytest.approx(library(*flat(outputs, labels, weights)), rel=1e-12)


@pytest.mark.parametrize("metric", [metric for metric, _ in METRICS])
def test_integer_weights_equal_repeated_examples(metric):
    outputs, labels = examples()
    made = metric(ClassMaps(N_CLASSES))
    weights = np.random.default_rng(1).integers(0, 4, len(labels))
    rows = np.repeat(np.arange(len(labels)), weights)
    repeated = made.pooled(made.statistics(outputs[rows], labels[rows]), np.ones(len(rows)))
    assert made.pooled(made.statistics(outputs, labels), weights.astype(float)) == pytest.approx(
        repeated, rel=1e-12
    )


@pytest.mark.parametrize("metric", [metric for metric, _ in METRICS])
def test_a_few_examples_at_a_time_give_the_same(metric, monkeypatch):
    outputs, labels = examples()
    made = metric(ClassMaps(N_CLASSES, upsample="bilinear"))
    small = outputs[:, :, ::2, ::2]
    at_once = made.statistics(small, labels)
    monkeypatch.setattr(class_maps, "_CHUNK_BYTES", 1)
    np.testing.assert_array_equal(made.statistics(small, labels), at_once)


def test_a_class_that_is_given_but_does_not_occur_counts():
    labels = np.zeros((1, 2, 2), np.int16)
    given = np.array([[[0, 0], [0, 3]]])
    metric = MIoU(ClassMaps(N_CLASSES))
    assert value_of(metric, metric.statistics(given, labels)) == pytest.approx(100 * (0.75 + 0) / 2)


def test_a_class_map_may_have_classes_that_masks_have_not():
    labels = np.zeros((1, 2, 2), np.int16)
    metric = MIoU(ClassMaps(2))
    assert value_of(metric, metric.statistics(np.array([[[0, 0], [0, 7]]]), labels)) == pytest.approx(75.0)


def test_without_labelled_positions_there_is_no_value():
    labels = np.full((2, 3, 3), -1, np.int16)
    for metric, _ in METRICS:
        made = metric(ClassMaps(3))
        assert np.isnan(made.pooled(made.statistics(np.zeros((2, 3, 3), int), labels), np.ones(2)))


def test_agreement_is_the_share_of_equal_positions():
    outputs, _ = examples()
    other = outputs + np.random.default_rng(5).normal(0, 0.5, outputs.shape).astype(np.float32)
    scores = SamePixels(ClassMaps(N_CLASSES)).per_example(other, outputs)
    np.testing.assert_allclose(
        scores, (other.argmax(1) == outputs.argmax(1)).reshape(len(outputs), -1).mean(1)
    )
