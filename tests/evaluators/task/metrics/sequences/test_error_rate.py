import sys

import numpy as np
import pytest

from evaluators.metric import direction_of
from evaluators.task.metrics.sequences import decoding
from evaluators.task.metrics.sequences.decoding import greedy, transcripts, words
from evaluators.task.metrics.sequences.error_rate import ErrorRate, SameTranscripts
from spaces.errors import ConfigError


def of_path(*path, n_classes=4):
    return np.eye(n_classes, dtype=np.float32)[[path]]


def distance(one, other):
    """The edit distance by its recursion."""
    table = np.zeros((len(one) + 1, len(other) + 1), int)
    table[:, 0], table[0] = np.arange(len(one) + 1), np.arange(len(other) + 1)
    for i, a in enumerate(one, 1):
        for j, b in enumerate(other, 1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a != b))
    return table[-1, -1]


@pytest.fixture
def batch():
    """Outputs `(30, 15, 6)` and padded labels `(30, 6)` of 0 to 6 symbols."""
    random = np.random.default_rng(0)
    labels = random.integers(1, 6, (30, 6))
    labels[np.arange(6) >= random.integers(0, 7, 30)[:, None]] = -1
    return random.normal(0, 1, (30, 15, 6)).astype(np.float32), labels


@pytest.mark.parametrize(
    ("path", "blank", "expected"),
    [
        ((1, 1, 0, 1, 2, 2), 0, [1, 1, 2]),
        ((0, 0, 0), 0, []),
        ((3, 3, 2), 0, [3, 2]),
        ((0, 3, 0, 1, 3, 3), -1, [0, 0, 1]),
    ],
)
def test_repetitions_are_merged_and_blanks_left_out(path, blank, expected):
    assert greedy(of_path(*path), blank) == [expected]


def test_labels_end_at_minus_1():
    assert transcripts(np.array([[1, 2, -1], [-1, -1, -1]])) == [[1, 2], []]


def test_words_lie_between_separators():
    assert words([5, 1, 2, 5, 5, 3], 5) == [(1, 2), (3,)]


def test_rate_is_all_edits_over_all_symbols(batch):
    outputs, labels = batch
    metric = ErrorRate()
    assert (metric.name, metric.unit, direction_of(metric)) == ("symbol_error_rate", "%", "minimize")
    found, references = greedy(outputs, 0), transcripts(labels)
    expected = sum(map(distance, found, references)) / sum(map(len, references))
    assert metric.pooled(metric.statistics(outputs, labels), np.ones(30)) == pytest.approx(expected)
    assert expected > 1  # more edits than symbols


def test_word_error_rate_counts_words():
    outputs = np.concatenate(
        [of_path(1, 2, 3, 1, 0, 1), of_path(2, 3, 2, 0, 0, 0)]
    )  # "ab aa", "b b"; 3 is the space
    labels = np.array([[1, 2, 3, 1, 2], [2, -1, -1, -1, -1]])  # "ab ab", "b"
    metric = ErrorRate(separator=3)
    assert metric.name == "word_error_rate"
    np.testing.assert_array_equal(metric.statistics(outputs, labels), [[1, 2], [1, 1]])


def test_agreement_is_1_minus_the_error_rate_between_two_models(batch):
    outputs, _ = batch
    other = np.roll(outputs, 1, axis=0)
    found, references = greedy(outputs, 0), greedy(other, 0)
    expected = 1 - sum(map(distance, found, references)) / sum(map(len, references))
    metric = SameTranscripts()
    assert metric.pooled(metric.statistics(outputs, other), np.ones(30)) == pytest.approx(expected)
    assert metric.pooled(metric.statistics(outputs, outputs), np.ones(30)) == 1


def test_models_that_read_nothing_agree():
    silent, one = of_path(0, 0), of_path(0, 1)
    metric = SameTranscripts()
    assert metric.pooled(metric.statistics(silent, silent), np.ones(1)) == 1
    assert metric.pooled(metric.statistics(one, silent), np.ones(1)) == 0


@pytest.mark.parametrize("metric", [ErrorRate(), ErrorRate(-1), ErrorRate(separator=2)])
def test_weights_equal_repeated_examples(metric, batch):
    outputs, labels = batch
    weights = np.random.default_rng(1).integers(0, 4, 30)
    rows = np.repeat(np.arange(30), weights)
    repeated = metric.pooled(metric.statistics(outputs[rows], labels[rows]), np.ones(len(rows)))
    assert metric.pooled(metric.statistics(outputs, labels), weights.astype(float)) == pytest.approx(repeated)


def test_a_missing_package_raises_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidfuzz", None)
    with pytest.raises(ConfigError, match=r"needs the package `rapidfuzz`: pip install 'paredown\[speech\]'"):
        decoding.check_extra()
