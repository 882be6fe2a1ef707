import numpy as np

from evaluators.task.metrics.top1 import Top1


def test_scores_by_hand():
    outputs = np.array([[0.1, 0.9], [0.9, 0.1], [0.5, 0.5], [np.nan, 1.0], [1.0, np.inf]], np.float32)
    scores = Top1().per_example(outputs, np.array([1, 1, 0, 1, 1]))
    assert scores.tolist() == [1, 0, 1, 0, 0]
    assert scores.dtype == np.float64
    assert Top1().scale * scores.mean() == 40.0
