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


def test_a_score_outside_its_bounds_disables_stopping():
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
