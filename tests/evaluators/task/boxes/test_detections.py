"""Overlaps and non-maximum suppression equal plain loops."""

import numpy as np
import pytest

from evaluators.task.boxes.detections import Detections, detections, from_centres, overlaps, suppressed


def _random(seed: int, n: int = 60) -> Detections:
    random = np.random.default_rng(seed)
    corner, side = random.uniform(0, 30, (n, 2)), random.uniform(1, 20, (n, 2))
    return detections(np.concatenate([corner, corner + side], 1), random.random(n), random.integers(0, 3, n))


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    common = width * height
    total = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return common / total if total else 0.0


def _by_loop(found: Detections, iou: float, most: int) -> list[int]:
    kept: list[int] = []
    for row in np.argsort(-found.scores, kind="stable").tolist():
        rivals = [k for k in kept if found.classes[k] == found.classes[row]]
        if all(_iou(found.boxes[k], found.boxes[row]) <= iou for k in rivals):
            kept.append(row)
    return kept[:most]


def test_overlaps_equal_plain_formula() -> None:
    some, others = _random(0).boxes, _random(1, 7).boxes
    expected = [[_iou(a, b) for b in others] for a in some]
    np.testing.assert_allclose(overlaps(some, others), expected, rtol=1e-12)
    points = np.zeros((1, 4))
    assert overlaps(points, points).tolist() == [[0.0]]


@pytest.mark.parametrize(("seed", "iou", "most"), [(0, 0.3, 100), (1, 0.5, 100), (2, 0.1, 5), (3, 0.0, 100)])
def test_suppression_equals_a_plain_loop(seed: int, iou: float, most: int) -> None:
    found = _random(seed)
    kept = suppressed(found, iou, most)
    assert kept.scores.tolist() == found.scores[_by_loop(found, iou, most)].tolist()
    assert len(kept) < len(found)


def test_suppression_takes_the_surest_candidates_only() -> None:
    found = _random(4)
    surest = np.sort(found.scores)[::-1]
    assert suppressed(found, None, 9).scores.tolist() == surest[:9].tolist()
    assert suppressed(found, 1.0, 100, candidates=5).scores.tolist() == surest[:5].tolist()
    assert len(suppressed(found.select(np.zeros(60, bool)), 0.5, 10)) == 0


def test_centres_become_corners() -> None:
    assert from_centres(np.array([[10, 20, 4, 6]])).tolist() == [[8, 17, 12, 23]]
