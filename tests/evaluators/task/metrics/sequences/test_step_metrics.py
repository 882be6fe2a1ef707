import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from evaluators.metric import direction_of
from evaluators.task.metrics.sequences.macro_f1 import MacroF1
from evaluators.task.metrics.sequences.token_accuracy import SameTokens, TokenAccuracy

N_CLASSES = 5


@pytest.fixture
def steps():
    """Outputs `(40, 12, 5)` and labels `(40, 12)`, a third of them without one; class 4 is neither a label nor predicted."""
    random = np.random.default_rng(0)
    labels = random.integers(0, N_CLASSES - 1, (40, 12))
    outputs = random.normal(0, 1, (40, 12, N_CLASSES)) + 1.5 * np.eye(N_CLASSES)[labels]
    outputs[..., 4] = -9
    return outputs.astype(np.float32), np.where(random.random(labels.shape) < 1 / 3, -1, labels)


def flat(outputs, labels):
    kept = labels >= 0
    return labels[kept], outputs.argmax(2)[kept]


def test_token_accuracy_is_scikit_learns(steps):
    metric = TokenAccuracy()
    assert (metric.unit, direction_of(metric)) == ("%", "maximize")
    statistics = metric.statistics(*steps)
    assert metric.pooled(statistics, np.ones(40)) == pytest.approx(accuracy_score(*flat(*steps)))


def test_macro_f1_is_scikit_learns(steps):
    metric = MacroF1(N_CLASSES)
    statistics = metric.statistics(*steps)
    assert metric.pooled(statistics, np.ones(40)) == pytest.approx(f1_score(*flat(*steps), average="macro"))


def test_a_class_that_is_only_predicted_counts_for_macro_f1():
    outputs = np.eye(N_CLASSES, dtype=np.float32)[[[0, 1, 4]]]
    labels = np.array([[0, 1, 1]])
    statistics = MacroF1(N_CLASSES).statistics(outputs, labels)
    expected = f1_score([0, 1, 1], [0, 1, 4], average="macro", zero_division=0)
    assert MacroF1(N_CLASSES).pooled(statistics, np.ones(1)) == pytest.approx(expected)


@pytest.mark.parametrize("metric", [TokenAccuracy(), MacroF1(N_CLASSES)])
def test_weights_equal_repeated_examples(metric, steps):
    outputs, labels = steps
    weights = np.random.default_rng(1).integers(0, 4, 40)
    rows = np.repeat(np.arange(40), weights)
    repeated = metric.pooled(metric.statistics(outputs[rows], labels[rows]), np.ones(len(rows)))
    assert metric.pooled(metric.statistics(outputs, labels), weights.astype(float)) == pytest.approx(repeated)


def test_agreement_is_the_share_of_equal_steps(steps):
    outputs, _ = steps
    other = np.roll(outputs, 1, axis=0)
    metric = SameTokens()
    expected = (outputs.argmax(2) == other.argmax(2)).mean()
    assert metric.pooled(metric.statistics(outputs, other), np.ones(40)) == pytest.approx(expected)
    assert metric.pooled(metric.statistics(outputs, outputs), np.ones(40)) == 1
