from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.task.statistics.early_stopping import PairedTest


def scores(rng, n, right, lost, won):
    """0/1 scores of a float model and of a candidate, which gets `lost` wrong and `won` right that it did not."""
    reference = (rng.permutation(n) < round(right * n)).astype(float)
    candidate = reference.copy()
    candidate[rng.permutation(np.flatnonzero(reference == 1))[: round(lost * n)]] = 0
    candidate[rng.permutation(np.flatnonzero(reference == 0))[: round(won * n)]] = 1
    return reference, candidate


def ever_stopped(reference, candidate, confidence):
    """Whether it stops at any example, were the candidate's own mean just what is needed."""
    test = PairedTest(reference, candidate.mean(), confidence)
    test.add(candidate[: int(0.94 * len(candidate))])  # it knows whether it would have stopped before
    return test.hopeless


def stopped_after(reference, candidate, least, confidence, block=16):
    """How many examples were looked at before it stopped; None if it went on to the end."""
    test = PairedTest(reference, least, confidence)
    for start in range(0, len(candidate), block):
        test.add(candidate[start : start + block])
        if test.hopeless:
            return min(start + block, len(candidate))
    return None


@pytest.mark.parametrize(("lost", "won"), [(0.02, 0.0), (0.05, 0.05), (0.3, 0.02)])
def test_a_candidate_that_is_just_good_enough_is_stopped_no_oftener_than_stated(lost, won):
    rng = np.random.default_rng(0)
    n, runs, confidence = 200, 2000, 0.9
    wrong = 0
    for _ in range(runs):
        reference, candidate = scores(rng, n, 0.8, lost, won)
        wrong += ever_stopped(reference, candidate, confidence)
    allowed = 1 - confidence
    assert wrong / runs <= allowed + 3 * np.sqrt(allowed * (1 - allowed) / runs)


def test_the_same_for_scores_that_are_not_right_or_wrong():
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


def test_a_candidate_that_is_clearly_good_enough_is_never_stopped():
    rng = np.random.default_rng(3)
    for _ in range(100):
        reference, candidate = scores(rng, 500, 0.9, 0.01, 0.01)
        assert stopped_after(reference, candidate, reference.mean() - 0.05, 0.999) is None


def test_what_not_even_perfect_answers_could_mend_is_certain():
    reference = np.ones(100)
    test = PairedTest(reference, 0.9, 1 - 1e-12)
    test.add(np.zeros(10))
    assert not test.certain
    test.add(np.zeros(1))
    assert test.certain
    assert test.hopeless


def test_exactly_enough_is_enough():
    reference = np.ones(50)
    test = PairedTest(reference, 0.9, 0.999)
    test.add(np.zeros(5))
    test.add(np.ones(42))
    assert not test.certain


def test_at_the_end_nothing_is_saved_by_stopping():
    test = PairedTest(np.ones(100), 0.99, 0.9)
    test.add(np.zeros(96))
    assert test.certain
    assert not test.hopeless


def test_a_score_outside_its_bounds_ends_the_test():
    test = PairedTest(np.ones(100), 0.99, 0.9)
    test.add(np.array([-7.0]))
    test.add(np.zeros(50))
    assert not test.hopeless


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 120),
    least=st.floats(-0.5, 1.5),
    blocks=st.lists(st.integers(1, 50), max_size=12),
)
def test_blocks_do_not_matter_and_nothing_overflows(seed, n, least, blocks):
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


def test_the_estimate_is_paired_and_its_error_is_honest():
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
