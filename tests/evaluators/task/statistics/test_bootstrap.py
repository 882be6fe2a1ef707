"""Bootstrap intervals: coverage in simulated repeats, pairing, and what happens without values."""

import numpy as np
import pytest
from scipy.stats import norm

from evaluators.task.metrics.classes.auc import AUC
from evaluators.task.metrics.classes.f1 import F1
from evaluators.task.metrics.numbers.r2 import R2
from evaluators.task.metrics.numbers.rmse import RMSE
from evaluators.task.statistics.bootstrap import bootstrap_interval, resampled_values
from evaluators.task.statistics.scores import Judge, statistics_of

REPEATS = 200
N = 200


def auc_repeat(rng):
    labels = (rng.random(N) < 0.3).astype(np.float32)
    return (rng.normal(size=N) + 1.2 * labels).astype(np.float32)[:, None], labels


def rmse_repeat(rng):
    labels = rng.normal(size=(N, 1))
    return (labels + rng.normal(0, 0.5, (N, 1))).astype(np.float32), labels


def f1_repeat(rng):
    labels = (rng.random(N) < 0.4).astype(np.float32)
    said = np.where(labels == 1, rng.random(N) < 0.8, rng.random(N) < 0.1)
    return np.where(said, 1.0, -1.0).astype(np.float32)[:, None], labels


def r2_repeat(rng):
    labels = rng.normal(size=(N, 1))
    return (labels + rng.normal(0, 0.5, (N, 1))).astype(np.float32), labels


# metric, repeat, truth: Phi(1.2 / sqrt 2); 0.5; 2 TP / (2 TP + FP + FN) of rates 0.32, 0.06, 0.08; 1 - 0.25
CASES = {
    "auc": (AUC(), auc_repeat, 100 * norm.cdf(1.2 / np.sqrt(2))),
    "rmse": (RMSE(), rmse_repeat, 0.5),
    "f1": (F1(), f1_repeat, 100 * 0.64 / 0.78),
    "r2": (R2(), r2_repeat, 75.0),
}


@pytest.mark.parametrize("name", CASES)
def test_intervals_hold_the_truth_in_92_to_98_per_cent_of_repeats(name):
    metric, repeat, truth = CASES[name]
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(REPEATS):
        low, high = Judge(metric, None, 0.95, 400).value(statistics_of(metric, *repeat(rng))).interval
        held += low <= truth <= high
    assert 0.92 <= held / REPEATS <= 0.98


@pytest.mark.parametrize("name", CASES)
def test_intervals_of_drops_hold_the_true_drop_and_are_paired(name):
    metric, repeat, _ = CASES[name]
    rng = np.random.default_rng(2)
    held, narrower = 0, 0
    for _ in range(REPEATS):
        outputs, labels = repeat(rng)
        # the same model with a little noise in both: the true drop is 0
        one, other = (outputs + rng.normal(0, 0.05, outputs.shape) for _ in range(2))
        first, second = (statistics_of(metric, o.astype(np.float32), labels) for o in (one, other))
        judge = Judge(metric, first, 0.95, 200)
        drop, value = judge.drop(second), judge.value(second)
        low, high = drop.interval or (0.0, 0.0)  # none where no answer differs
        held += low <= 0 <= high
        narrower += high - low < value.interval.high - value.interval.low
    assert held / REPEATS >= 0.92
    assert narrower / REPEATS > 0.95


def test_the_same_number_of_examples_gives_the_same_resamples():
    metric, repeat, _ = CASES["rmse"]
    statistics = statistics_of(metric, *repeat(np.random.default_rng(0)))
    assert np.array_equal(resampled_values(metric, statistics, 50), resampled_values(metric, statistics, 50))


def test_resamples_without_a_value_do_not_count():
    interval = bootstrap_interval(1.0, np.array([np.nan, 0.5, 1.5, np.nan]))
    assert interval.low < 1.0 < interval.high
    assert bootstrap_interval(1.0, np.full(3, np.nan)) is None


def test_a_perfect_score_and_equal_models_have_no_interval():
    labels = np.arange(40) % 2
    statistics = statistics_of(AUC(), labels[:, None].astype(np.float32), labels)
    judge = Judge(AUC(), statistics, 0.95, 50)
    assert judge.value(statistics) == (100.0, None)
    assert judge.drop(statistics) == (0.0, None)
