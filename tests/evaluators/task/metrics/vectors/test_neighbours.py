import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from evaluators.task.metrics.vectors import neighbours
from evaluators.task.metrics.vectors.neighbours import nearest
from evaluators.task.metrics.vectors.recall_at_k import RecallAtK
from evaluators.task.metrics.vectors.same_neighbours import SameNeighbours
from evaluators.task.statistics.scores import value_of
from spaces.errors import ConfigError

rng = np.random.default_rng(0)
VECTORS = rng.standard_normal((60, 5)).astype(np.float32)
LABELS = rng.integers(0, 6, 60)
METRICS = {"cosine": "cosine", "l2": "euclidean"}


def scikit_learns(vectors, k, distance):
    found = (
        NearestNeighbors(n_neighbors=k, metric=METRICS[distance])
        .fit(vectors)
        .kneighbors(return_distance=False)
    )
    return np.asarray(found)


@pytest.mark.parametrize("distance", ["cosine", "l2"])
@pytest.mark.parametrize("chunk", [100, 2**23])
def test_equals_scikit_learns(distance, chunk, monkeypatch):
    monkeypatch.setattr(neighbours, "_CHUNK", chunk)
    np.testing.assert_array_equal(nearest(VECTORS, 7, distance), scikit_learns(VECTORS, 7, distance))


def test_an_example_is_not_its_own_neighbour_and_equal_vectors_come_in_order():
    same = np.ones((4, 3), np.float32)
    assert nearest(same, 2).tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]
    assert nearest(same * 0, 9).shape == (4, 3)


@pytest.mark.parametrize("distance", ["cosine", "l2"])
@pytest.mark.parametrize("k", [1, 5])
def test_recall_equals_an_independent_computation(distance, k):
    metric = RecallAtK(k, distance)
    found = scikit_learns(VECTORS, k, distance)
    wanted = np.mean([LABELS[i] in LABELS[row] for i, row in enumerate(found)])
    statistics = metric.statistics(VECTORS, LABELS)
    assert value_of(metric, statistics) == pytest.approx(100 * wanted)
    weights = rng.integers(0, 4, 60)
    repeated = np.repeat(statistics, weights, axis=0)
    assert metric.pooled(statistics, weights.astype(float)) == pytest.approx(
        metric.pooled(repeated, np.ones(len(repeated)))
    )
    assert metric.pooled(statistics, np.ones(60)) == pytest.approx(wanted)


def test_an_example_alone_in_its_class_does_not_count():
    labels = np.array([0, 0, 1])
    vectors = np.array([[1, 0], [1, 0.1], [0, 1]], np.float32)
    assert value_of(RecallAtK(1), RecallAtK(1).statistics(vectors, labels)) == 100
    alone = RecallAtK(1).statistics(vectors, np.arange(3))
    assert np.isnan(RecallAtK(1).pooled(alone, np.ones(3)))


def test_recall_needs_a_neighbour():
    with pytest.raises(ConfigError, match="k must be a whole number from 1 on"):
        RecallAtK(0)


def test_agreement_is_the_share_of_common_neighbours():
    metric = SameNeighbours(4)
    other = VECTORS + rng.normal(0, 0.3, VECTORS.shape).astype(np.float32)
    pairs = zip(scikit_learns(VECTORS, 4, "cosine"), scikit_learns(other, 4, "cosine"), strict=True)
    wanted = np.mean([len({*a} & {*b}) / 4 for a, b in pairs])
    assert value_of(metric, metric.statistics(VECTORS, other)) == pytest.approx(100 * wanted)
    assert value_of(metric, metric.statistics(VECTORS, 3 * VECTORS)) == 100
