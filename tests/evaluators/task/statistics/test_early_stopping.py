from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.task.statistics.early_stopping import PairedTest


def scores(rng, n, right, lost, won):
    """0/1 scores of a float model and of a candidate that gets a share `lost` newly wrong and `won` newly right."""
    reference = (rng.permutation(n) < round(right * n)).astype(float)
    candidate = reference.copy()
    candidate[rng.permutation(np.flatnonzero(reference == 1))[: round(lost * n)]] = 0
    candidate[rng.permutation(np.flatnonzero(reference == 0))[: round(won * n)]] = 1
    return reference, candidate


def ever_stopped(reference, candidate, confidence):
    """Whether the test stops at any example if the threshold is the candidate's own mean."""
    test = PairedTest(reference, candidate.mean(), confidence)
    test.add(candidate[: int(0.94 * len(candidate))])  # the test keeps the largest capital over all examples
    return test.hopeless


def stopped_after(reference, candidate, least, confidence, block=16):
    """Number of examples added before the test stopped; None if it did not stop."""
    test = PairedTest(reference, least, confidence)
    for start in range(0, len(candidate), block):
        test.add(candidate[start : start + block])
        if test.hopeless:
            return min(start + block, len(candidate))
    return None


def greatest_capital(reference, candidate, least, low, high):
    """What a gambler who begins with 1 had at best: example by example, as the paper has it."""
    n, width, total = len(reference), high - low, float(reference.sum())
    capital = greatest = 1.0
    seen, squares = [], []
    for i, difference in enumerate((candidate - reference[: len(candidate)]).tolist()):
        needed = (n * least - total - sum(seen)) / (n - i)  # mean of what is left, were it just enough
        mean = sum(seen) / (i + 1)  # with one imagined difference of 0
        variance = (width**2 / 4 + sum(squares)) / (i + 1)
        bet = 0.0
        if needed < width:
            gap = needed - mean
            bet = min(max(gap / (variance + gap**2), 0.0), 0.75 / (width - needed))
        capital *= 1 - bet * (difference - needed)
        greatest = max(greatest, capital)
        seen.append(difference)
        squares.append((difference - sum(seen) / len(seen)) ** 2)
    return greatest


@st.composite
def evaluations(draw):
    """Scores of a reference and of the first examples of a candidate, their bounds, and what is needed."""
    low, width = draw(st.sampled_from([(0.0, 1.0), (-1.0, 2.0), (2.0, 0.5)]))
    n = draw(st.integers(2, 40))
    k = draw(st.integers(1, n - 1 - n // 20))
    shares = st.integers(0, 4).map(lambda quarters: low + width * quarters / 4)
    reference = np.array(draw(st.lists(shares, min_size=n, max_size=n)))
    candidate = np.array(draw(st.lists(shares, min_size=k, max_size=k)))
    return reference, candidate, low + width * draw(st.integers(-2, 10)) / 8, low, low + width


@settings(max_examples=60, deadline=None)
@given(evaluations(), st.data())
def test_it_stops_where_the_capital_once_was_one_over_what_is_allowed(evaluation, data):
    reference, candidate, least, low, high = evaluation
    greatest = greatest_capital(*evaluation)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(candidate)), max_size=4)))  # some blocks are empty
    for factor in (1 - 1e-6, 1 + 1e-6):
        if greatest * factor > 1:
            test = PairedTest(reference, least, 1 - 1 / (greatest * factor), (low, high))
            for block in np.split(candidate, cuts):
                test.add(block)
            assert test.hopeless == (test.certain or factor < 1)


@settings(max_examples=50, deadline=None)
@given(evaluations())
def test_the_estimate_is_the_mean_difference_and_its_error_that_of_a_sample_without_replacement(evaluation):
    reference, candidate, least, low, high = evaluation
    n, k = len(reference), len(candidate)
    differences = reference[:k] - candidate
    test = PairedTest(reference, least, bounds=(low, high))
    test.add(candidate)
    found = test.partial()
    assert (found.n_examples, found.drop) == (k, pytest.approx(differences.mean()))
    assert found.mean == pytest.approx(reference.mean() - differences.mean())
    # one imagined difference of the whole width is shared among the examples
    variance = differences.var() + ((high - low) / k) ** 2
    assert found.error == pytest.approx(np.sqrt(variance / k * (n - k) / (n - 1)))


@pytest.mark.parametrize(("lost", "won"), [(0.02, 0.0), (0.05, 0.05), (0.3, 0.02)])
def test_a_candidate_at_the_threshold_is_stopped_with_at_most_the_stated_probability(lost, won):
    rng = np.random.default_rng(0)
    n, runs, confidence = 200, 2000, 0.9
    wrong = 0
    for _ in range(runs):
        reference, candidate = scores(rng, n, 0.8, lost, won)
        wrong += ever_stopped(reference, candidate, confidence)
    allowed = 1 - confidence
    assert wrong / runs <= allowed + 3 * np.sqrt(allowed * (1 - allowed) / runs)


def test_the_same_for_scores_that_are_not_binary():
    rng = np.random.default_rng(1)
    n, runs = 100, 2000
    wrong = 0
    for _ in range(runs):
        reference = rng.beta(5, 2, n)
        candidate = np.clip(reference + rng.normal(-0.05, 0.2, n), 0, 1)
        wrong += ever_stopped(reference, candidate, 0.9)
    assert wrong / runs <= 0.1 + 3 * np.sqrt(0.09 / runs)


def test_bad_candidates_cost_a_small_part_of_a_full_evaluation():
    rng = np.random.default_rng(2)
    for lost, most in ((0.02, 0.75), (0.05, 0.25), (0.15, 0.1), (0.8, 0.02)):
        used = []
        for _ in range(20):
            reference, candidate = scores(rng, 4000, 0.92, lost, 0.0)
            used.append(stopped_after(reference, candidate, reference.mean(), 0.999) or 4000)
        assert np.mean(used) <= most * 4000


def test_a_candidate_clearly_above_the_threshold_is_never_stopped():
    rng = np.random.default_rng(3)
    for _ in range(100):
        reference, candidate = scores(rng, 500, 0.9, 0.01, 0.01)
        assert stopped_after(reference, candidate, reference.mean() - 0.05, 0.999) is None


def test_a_threshold_out_of_reach_of_the_highest_scores_is_certain():
    reference = np.ones(100)
    test = PairedTest(reference, 0.9, 1 - 1e-12)
    test.add(np.zeros(10))
    assert not test.certain
    test.add(np.zeros(1))
    assert test.certain
    assert test.hopeless


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.data())
def test_it_is_certain_where_right_answers_to_all_the_rest_are_too_few(answers, data):
    n = len(answers)
    k, needed = data.draw(st.integers(0, n)), data.draw(st.integers(0, n))
    test = PairedTest(np.ones(n), needed / n)
    test.add(np.array(answers[:k], float))
    assert test.certain == (sum(answers[:k]) + n - k < needed)


@given(st.floats(1e-3, 1e12), st.integers(1, 200), st.data())
def test_rounding_makes_nothing_certain_and_a_millionth_does(high, n, data):
    k = data.draw(st.integers(0, n))
    for least, certain in ((high, False), (high + 1e-6 * max(high, 1.0), True)):
        test = PairedTest(np.full(n, high), least, bounds=(0.0, high))
        test.add(np.full(k, high))
        assert test.certain == certain


def test_scores_that_cancel_but_for_rounding_make_nothing_certain():
    cancelling = np.array([-0.1, -0.2, 0.3])
    assert cancelling.sum() < 0
    test = PairedTest(np.zeros(3), 0.0, bounds=(-1.0, 1.0))
    test.add(cancelling)
    assert not test.certain


def test_a_mean_equal_to_the_threshold_is_not_certain():
    reference = np.ones(50)
    test = PairedTest(reference, 0.9, 0.999)
    test.add(np.zeros(5))
    test.add(np.ones(42))
    assert not test.certain


def test_the_test_does_not_stop_near_the_end():
    test = PairedTest(np.ones(100), 0.99, 0.9)
    test.add(np.zeros(96))
    assert test.certain
    assert not test.hopeless


@pytest.mark.parametrize(("k", "stops"), [(94, True), (95, False), (100, False)])
def test_the_last_twentieth_is_always_evaluated(k, stops):
    test = PairedTest(np.ones(100), 0.99, 0.9)
    test.add(np.zeros(k))
    assert test.hopeless == stops


@pytest.mark.parametrize("score", [-7.0, -1e-9, 1 + 1e-9, np.nan])
def test_a_score_outside_its_bounds_ends_the_test(score):
    test = PairedTest(np.ones(100), 0.99, 0.9)
    test.add(np.array([score]))
    test.add(np.zeros(50))
    assert not test.hopeless
    assert not test.certain


def test_what_was_given_up_is_never_stopped():
    test = PairedTest(np.ones(100), 0.99, 0.9)
    test.add(np.zeros(50))
    assert test.hopeless
    test.give_up()
    test.add(np.zeros(10))
    assert not test.hopeless


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 120),
    least=st.floats(-0.5, 1.5),
    blocks=st.lists(st.integers(1, 50), max_size=12),
)
def test_results_do_not_depend_on_blocks_and_are_finite(seed, n, least, blocks):
    rng = np.random.default_rng(seed)
    reference, candidate = rng.integers(0, 2, n).astype(float), rng.integers(0, 2, n).astype(float)
    whole, divided = PairedTest(reference, least), PairedTest(reference, least)
    used = min(n, sum(blocks) or 1)
    whole.add(candidate[:used])
    cuts = np.unique(np.clip(np.cumsum([0, *blocks, n]), 0, used))
    for start, stop in pairwise(cuts):
        divided.add(candidate[start:stop])
    assert whole.hopeless == divided.hopeless
    assert whole.partial().mean == pytest.approx(divided.partial().mean)
    assert np.isfinite([whole.partial().mean, whole.partial().error]).all()
    if whole.certain:
        assert candidate.mean() < least


def test_the_estimate_is_paired_and_its_standard_error_covers():
    rng = np.random.default_rng(4)
    inside, n, k = 0, 2000, 300
    for _ in range(300):
        reference, candidate = scores(rng, n, 0.8, 0.1, 0.02)
        test = PairedTest(reference, 0.5)
        test.add(candidate[:k])
        partial = test.partial()
        assert partial.n_examples == k
        assert partial.drop == pytest.approx(reference[:k].mean() - candidate[:k].mean())
        inside += abs(partial.mean - candidate.mean()) <= 1.96 * partial.error
    assert inside / 300 >= 0.9
    assert partial.error < 0.023  # unpaired it would be 0.027
