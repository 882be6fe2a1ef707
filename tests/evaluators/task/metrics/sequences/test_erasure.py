from itertools import pairwise, takewhile

import numpy as np
import pytest

from evaluators.task.metrics.sequences.erasure import Erasure
from evaluators.task.statistics.scores import statistics_of, value_of
from spaces.errors import EvaluationError

METRIC = Erasure()


def as_array(hypotheses, steps=8):
    """Returns lists of token ids, by example and prefix, padded with -1."""
    rows = [[[*h, *[-1] * (steps - len(h))] for h in prefixes] for prefixes in hypotheses]
    return np.array(rows)


def value(outputs):
    return value_of(METRIC, statistics_of(METRIC, outputs, np.zeros(len(outputs))))


def _common(a, b):
    return len([*takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))])


def by_hand(hypotheses):
    erased = sum(len(a) - _common(a, b) for one in hypotheses for a, b in pairwise(one))
    return erased / sum(len(one[-1]) for one in hypotheses)


def random_hypotheses(n=50):
    rng = np.random.default_rng(0)
    return [[rng.integers(0, 2, rng.integers(1, 8)).tolist() for _ in range(5)] for _ in range(n)]


def test_one_example_by_hand():
    # "a b" -> "a c d" takes back b; -> "a c d e" nothing; -> "f" all four
    one = [[1, 2], [1, 3, 4], [1, 3, 4, 5], [6]]
    assert value(as_array([one])) == 5
    assert value(as_array([one[:3]])) == pytest.approx(1 / 4)


def test_it_is_what_a_loop_over_strings_gives():
    hypotheses = random_hypotheses()
    assert value(as_array(hypotheses)) == pytest.approx(by_hand(hypotheses))


def test_hypotheses_that_only_grow_and_a_constant_output_have_no_erasure():
    assert value(as_array([[[], [1], [1, 2], [1, 2, 3]]])) == 0
    assert value(as_array([[[1, 2]] * 4])) == 0


def test_tokens_after_the_end_do_not_count():
    padded = np.array([[[1, -1, 5], [1, -1, 7]]])
    assert METRIC.statistics(padded, None).tolist() == [[0, 1]]


def test_weights_repeat_examples():
    outputs = as_array(random_hypotheses(12))
    weights = np.arange(12) % 4
    weighted = METRIC.pooled(METRIC.statistics(outputs, None), weights.astype(np.float64))
    assert weighted == pytest.approx(value(np.repeat(outputs, weights, axis=0)))


def test_empty_hypotheses_have_no_value():
    with pytest.raises(EvaluationError, match="erasure has no value"):
        value(as_array([[[1], []]]))
