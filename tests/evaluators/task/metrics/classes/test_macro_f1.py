import numpy as np
import pytest
from sklearn.metrics import f1_score

from evaluators.task.metrics.classes.macro_f1 import MacroF1

rng = np.random.default_rng(0)


@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_equals_scikit_learns(n_classes):
    outputs = rng.standard_normal((50, n_classes)).astype(np.float32)
    labels = rng.integers(0, max(2, n_classes - 1), 50)  # of more than two classes the last has no examples
    weights = rng.integers(0, 4, 50).astype(np.float64)
    metric = MacroF1()
    statistics = metric.statistics(outputs, labels)
    for counted in (np.ones(50), weights):
        kept = counted > 0
        wanted = f1_score(
            labels[kept],
            outputs.argmax(1)[kept],
            average="macro",
            sample_weight=counted[kept],
            zero_division=0,
        )
        assert metric.pooled(statistics, counted) == pytest.approx(wanted)
    repeated = np.repeat(statistics, weights.astype(int), axis=0)
    assert metric.pooled(statistics, weights) == pytest.approx(
        metric.pooled(repeated, np.ones(len(repeated)))
    )
