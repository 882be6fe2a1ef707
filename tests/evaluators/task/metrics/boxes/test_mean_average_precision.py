"""Average precision equals pycocotools' on random boxes; weights equal repeated images."""

import contextlib
import io
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from evaluators.metric import PooledMetric
from evaluators.task.boxes.decoder import Decoder, Decoding
from evaluators.task.boxes.detections import Detections, detections
from evaluators.task.boxes.labels import COUNTS, CROWD, IGNORED, box_labels, label_rows
from evaluators.task.metrics.boxes.mean_average_precision import MeanAveragePrecision
from spaces.stages.array_split import ragged

Labels = NDArray[Any]


class _Ready(Decoder):
    """Reads an output of image numbers: the detections are known."""

    def __init__(self, found: list[Detections]) -> None:
        self._found = found

    def decode(self, outputs: Any) -> list[Detections]:
        (numbers,) = outputs.values()
        return [self._found[number] for number in numbers]


def _boxes(random: np.random.Generator, n: int) -> NDArray[np.float64]:
    corner, side = random.uniform(0, 60, (n, 2)), random.uniform(5, 40, (n, 2))
    return np.concatenate([corner, corner + side], axis=1)


def _examples(
    seed: int, n_images: int = 20, n_classes: int = 4, ties: bool = False
) -> tuple[list[Detections], Labels]:
    random = np.random.default_rng(seed)
    found, labels = [], []
    for _ in range(n_images):
        m, extra = random.integers(0, 7), random.integers(0, 12)
        boxes, classes = _boxes(random, m), random.integers(0, n_classes - 1, m)
        states = random.choice([COUNTS, IGNORED, CROWD], m, p=[0.7, 0.15, 0.15])
        labels.append(label_rows(boxes, classes, states))
        near = np.repeat(boxes, 2, axis=0) + random.normal(0, random.choice([0.5, 3.0]), (2 * m, 4))
        guesses = np.concatenate([near, _boxes(random, extra)])
        of_guesses = np.concatenate([np.repeat(classes, 2), random.integers(0, n_classes, extra)])
        scores = random.random(len(guesses))
        found.append(detections(guesses, scores.round(1) if ties else scores, of_guesses))
    return found, ragged(labels)


def coco_evaluation(found: list[Detections], labels: Labels, n_classes: int, most: int) -> COCOeval:
    """Returns pycocotools' evaluation; ignored boxes are given to it as boxes of a huge area."""
    truth = COCO()
    annotations = []
    for image, label in enumerate(labels):
        rows = box_labels(label)
        for box, k, state in zip(rows.boxes, rows.classes, rows.ignored, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": image + 1, "category_id": int(k) + 1,
                    "bbox": [*box[:2], *(box[2:] - box[:2])], "iscrowd": int(state == CROWD),
                    "area": 1e11 if state == IGNORED else 10.0,
                }
            )  # fmt: skip
    truth.dataset = {
        "images": [{"id": image + 1} for image in range(len(labels))],
        "categories": [{"id": k + 1} for k in range(n_classes)],
        "annotations": annotations,
    }
    results = [
        {
            "image_id": image + 1,
            "category_id": int(k) + 1,
            "bbox": [*box[:2], *(box[2:] - box[:2])],
            "score": score,
        }
        for image, each in enumerate(found)
        for box, score, k in zip(each.boxes, each.scores, each.classes, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.params.maxDets = [most]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def coco_stats(
    found: list[Detections], labels: Labels, n_classes: int, most: int = 100
) -> tuple[float, float]:
    """Returns pycocotools' mAP at 0.5:0.95 and at 0.5."""
    precision = coco_evaluation(found, labels, n_classes, most).eval["precision"][..., 0, 0]
    return tuple(float(np.mean(p[p > -1])) for p in (precision, precision[:1]))  # type: ignore[return-value]


def _metrics(found: list[Detections], most: int = 100) -> tuple[MeanAveragePrecision, MeanAveragePrecision]:
    decoding = Decoding(_Ready(found))
    return (
        MeanAveragePrecision(decoding, most=most),
        MeanAveragePrecision(decoding, "map50", np.array([0.5]), most),
    )


def _value(metric: PooledMetric, labels: Labels, weights: Any = None) -> float:
    numbers = np.arange(len(labels))
    ones = np.ones(len(labels)) if weights is None else weights.astype(float)
    return metric.pooled(metric.statistics(numbers, labels), ones)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("most", [100, 3])
def test_equals_pycocotools(seed: int, most: int) -> None:
    found, labels = _examples(seed, ties=seed % 3 == 0)
    values = [_value(metric, labels) for metric in _metrics(found, most)]
    assert values == pytest.approx(coco_stats(found, labels, 4, most), abs=1e-12)
    assert 0.05 < values[0] < values[1] < 0.95


@pytest.mark.parametrize("seed", range(4))
def test_matches_equal_those_of_pycocotools(seed: int) -> None:
    found, labels = _examples(seed)
    statistics = _metrics(found, 5)[0].statistics(np.arange(len(labels)), labels)
    evaluation = coco_evaluation(found, labels, 4, 5)
    each_area = len(evaluation.params.areaRng) * len(labels)
    for k in range(4):
        for own, theirs in zip(statistics, evaluation.evalImgs[k * each_area :], strict=False):
            rows = own.classes == k
            matches, ignored = (
                (np.zeros((0, 10), bool),) * 2
                if theirs is None
                else (theirs["dtMatches"].T > 0, theirs["dtIgnore"].T.astype(bool))
            )
            np.testing.assert_array_equal(own.right[rows], matches & ~ignored)
            np.testing.assert_array_equal(own.ignored[rows], ignored)
            assert own.scores[rows].tolist() == ([] if theirs is None else theirs["dtScores"])


@pytest.mark.parametrize("seed", range(6))
def test_integer_weights_equal_repeated_images(seed: int) -> None:
    found, labels = _examples(seed)
    weights = np.random.default_rng(seed).integers(0, 4, len(labels))
    repeated = np.repeat(np.arange(len(labels)), weights)
    copies = [found[i] for i in repeated]
    for metric, expected in zip(_metrics(found), coco_stats(copies, labels[repeated], 4), strict=True):
        assert _value(metric, labels, weights) == pytest.approx(expected, abs=1e-12)


def test_batches_joined_equal_one_batch() -> None:
    found, labels = _examples(1)
    metric, _ = _metrics(found)
    parts = [metric.statistics(rows, labels[rows]) for rows in np.array_split(np.arange(len(labels)), 3)]
    assert metric.pooled(np.concatenate(parts), np.ones(len(labels))) == _value(metric, labels)


def test_images_without_boxes_have_no_value_and_without_detections_zero() -> None:
    nothing = detections(np.empty((0, 4)), np.empty(0), np.empty(0))
    empty = ragged([np.empty((0, 6))] * 2)
    metric, _ = _metrics([nothing] * 2)
    assert np.isnan(_value(metric, empty))
    one = ragged([label_rows(np.array([[0, 0, 4, 4.0]]), np.array([1])), np.empty((0, 6))])
    assert _value(metric, one) == 0
    assert np.isnan(_value(metric, one, np.array([0, 1])))


def test_a_class_without_boxes_does_not_count() -> None:
    box = np.array([[0, 0, 4, 4.0]])
    found = [detections(np.repeat(box, 2, axis=0), np.array([0.5, 0.9]), np.array([0, 7]))] * 2
    metric, _ = _metrics(found)
    assert _value(metric, ragged([label_rows(box, np.array([0]))] * 2)) == 1


def test_resampling_500_images_is_fast() -> None:
    found, labels = _examples(0, 500, 10)
    metric, _ = _metrics(found)
    statistics = metric.statistics(np.arange(500), labels)
    start = time.process_time()
    values = metric.pooled_each(statistics, np.random.default_rng(0).poisson(1.0, (400, 500)).astype(float))
    assert time.process_time() - start < 10  # 0.5 s on an idle core
    assert np.isfinite(values).all()
