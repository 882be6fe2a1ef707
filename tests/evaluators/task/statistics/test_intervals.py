import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.task.statistics.intervals import (
    clopper_pearson_bound,
    is_binary,
    mean_interval,
    paired_interval,
    paired_proportion_interval,
    score_interval,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("n_right", "n", "low", "high"),
    [
        # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_values(n_right, n, low, high):
    assert wilson_interval(n_right, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("n_events", "n", "confidence", "bound"),
    [
        # upper ends of 95 % two-sided intervals in Newcombe 1998, table I, method 5 (Clopper and Pearson)
        (81, 263, 0.975, 0.3676),
        (15, 148, 0.975, 0.1617),
        (0, 20, 0.975, 0.1684),
        (1, 29, 0.975, 0.1776),
        (0, 59, 0.95, 1 - 0.05 ** (1 / 59)),
        (7, 7, 0.95, 1.0),
    ],
)
def test_clopper_and_pearson_give_the_published_values(n_events, n, confidence, bound):
    assert clopper_pearson_bound(n_events, n, confidence) == pytest.approx(bound, abs=5e-5)


@pytest.mark.parametrize("p", [0.02, 0.1, 0.5])
def test_clopper_and_pearsons_bound_has_at_least_its_nominal_coverage(p):
    n = 40
    weights = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    missed = sum(w for k, w in enumerate(weights) if clopper_pearson_bound(k, n, 0.9) < p)
    assert missed <= 0.1


@pytest.mark.parametrize("call", [(-1, 5, 0.9), (6, 5, 0.9), (0, 0, 0.9), (1, 5, 1.0)])
def test_clopper_and_pearson_refuse_impossible_counts(call):
    with pytest.raises(ValueError, match="must hold, but got"):
        clopper_pearson_bound(*call)


def test_paired_interval_agrees_with_walds_on_a_large_published_table():
    # Approval ratings of one prime minister by 1600 people, twice: 150 changed one way and 86 the other; Wald's interval
    # is (0.021, 0.059) (Agresti, "Categorical Data Analysis", section on comparing dependent proportions).
    assert paired_proportion_interval(150, 86, 1600) == pytest.approx((0.021, 0.059), abs=6e-4)


def test_paired_interval_is_walds_after_one_more_example_in_each_discordant_cell():
    only_first, only_second, n = 9, 2, 40
    # The four cells as weighted differences: +1, -1, and 0 where both models agree.
    values, weights = np.array([1, -1, 0]), np.array([only_first + 1, only_second + 1, n - 11])
    mean = np.average(values, weights=weights)
    deviation = math.sqrt(np.average((values - mean) ** 2, weights=weights) / weights.sum())
    wanted = (mean - 1.959964 * deviation, mean + 1.959964 * deviation)
    assert paired_proportion_interval(only_first, only_second, n) == pytest.approx(wanted, abs=1e-6)


def test_paired_interval_of_a_small_table():
    # Airway reactions of 21 children before and after a transplantation, 1 and 7 discordant (Fagerland et al. 2014).
    assert paired_proportion_interval(1, 7, 21) == pytest.approx((-0.508, -0.013), abs=6e-4)


def test_wilson_has_its_nominal_coverage():
    def coverage(p, n=50):
        chance = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
        return sum(
            c for k, c in enumerate(chance) if wilson_interval(k, n).low <= p <= wilson_interval(k, n).high
        )

    exact = [coverage(p) for p in np.linspace(0.02, 0.98, 49)]
    assert np.mean(exact) == pytest.approx(0.95, abs=0.01)
    assert min(exact) > 0.90


@pytest.mark.parametrize(
    ("p_first", "p_second"), [(0.15, 0.05), (0.02, 0.02), (0.1, 0.3), (0.05, 0.0), (0.4, 0.4), (0.3, 0.01)]
)
@pytest.mark.parametrize("n", [15, 40])
def test_paired_interval_has_about_its_nominal_coverage(p_first, p_second, n):
    """Exact coverage: every possible pair of counts, weighted by its trinomial probability."""
    truth, covered = p_first - p_second, 0.0
    for b in range(n + 1):
        for c in range(n + 1 - b):
            rest = n - b - c
            chance = math.factorial(n) / (math.factorial(b) * math.factorial(c) * math.factorial(rest))
            chance *= p_first**b * p_second**c * (1 - p_first - p_second) ** rest
            interval = paired_proportion_interval(b, c, n)
            covered += chance * (interval.low <= truth <= interval.high)
    assert covered >= 0.93


def test_normal_interval_has_its_nominal_coverage():
    random = np.random.default_rng(0)
    samples = random.exponential(size=(2000, 200))
    covered = np.mean([i.low <= 1 <= i.high for i in map(mean_interval, samples)])
    assert covered == pytest.approx(0.95, abs=0.02)


@given(
    st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999)
)
def test_wilson_holds_the_estimate_and_stays_in_range(counts, confidence):
    n_right, n = counts
    interval = wilson_interval(n_right, n, confidence)
    assert 0 <= interval.low <= n_right / n <= interval.high <= 1


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200))
def test_paired_interval_is_antisymmetric_and_in_range(pairs):
    first, second = np.array(pairs, dtype=float).T
    interval, mirrored = paired_interval(first, second), paired_interval(second, first)
    assert interval == pytest.approx((-mirrored.high, -mirrored.low))
    assert -1 <= interval.low < interval.high <= 1


def test_more_confidence_is_wider_and_more_examples_are_narrower():
    width = lambda i: i.high - i.low  # noqa: E731
    assert width(wilson_interval(80, 100, 0.99)) > width(wilson_interval(80, 100, 0.9))
    assert width(wilson_interval(800, 1000)) < width(wilson_interval(80, 100))
    assert width(paired_proportion_interval(40, 20, 1000)) < width(paired_proportion_interval(4, 2, 100))


def test_pairing_is_narrower_than_two_separate_intervals():
    random = np.random.default_rng(1)
    first = (random.random(2000) < 0.9).astype(float)
    second = np.where(random.random(2000) < 0.02, 1 - first, first)  # 2 % of the answers change
    paired, alone = paired_interval(first, second), score_interval(first)
    assert paired.high - paired.low < 0.6 * (alone.high - alone.low)


def test_scores_that_are_not_binary_get_the_normal_interval():
    scores = np.array([0.1, 0.4, 0.7, 0.2])
    assert not is_binary(scores)
    assert score_interval(scores) == mean_interval(scores)
    assert paired_interval(scores, scores) == (0, 0)
    deviation = np.std(scores, ddof=1) / 2
    assert mean_interval(scores) == pytest.approx((0.35 - 1.959964 * deviation, 0.35 + 1.959964 * deviation))


@pytest.mark.parametrize(
    "call",
    [
        lambda: wilson_interval(3, 2),
        lambda: wilson_interval(0, 0),
        lambda: wilson_interval(1, 2, confidence=1.0),
        lambda: paired_proportion_interval(3, 3, 5),
        lambda: paired_proportion_interval(-1, 0, 5),
        lambda: mean_interval(np.array([1.0])),
        lambda: paired_interval(np.zeros(3), np.zeros(4)),
    ],
)
def test_impossible_counts_are_refused(call):
    with pytest.raises(ValueError, match=r"must hold|must have|at least two"):
        call()
