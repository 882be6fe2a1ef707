from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.cost.language.speculative import (
    Speculation,
    SpeculativeMemory,
    fastest_plan,
    leanest_plan,
    plans,
    speed_up,
)
from spaces.errors import EvaluationError

# Llama-2-7B with a 68M draft in 16 bits, 1,024 tokens: 2 x 32 x 32 x 128 x 2 bytes and 2 x 2 x 12 x 64 x 2 bytes.
MEMORY = SpeculativeMemory(13.5e9, 0.14e9, 524_288, 6_144, vocabulary=32_000, context=1024)
CHAINS = Speculation(acceptance=0.7, draft_cost=0.05, max_width=1)
TREES = Speculation(acceptance=0.7, draft_cost=0.05)


def test_the_speed_up_of_a_chain_by_hand():
    assert speed_up(0.8, 5, 0.05) == pytest.approx((1 - 0.8**6) / (0.2 * 1.25))
    assert speed_up(1.0, 4, 0.0) == 5
    assert speed_up(0.0, 4, 0.1) == pytest.approx(1 / 1.4)
    assert speed_up(0.5, 0, 0.1) == 1


def test_the_memory_by_hand():
    small = SpeculativeMemory(1000, 100, 10, 2, vocabulary=7, context=50, logit_bytes=4, mask_bytes=0.5)
    assert small.generation_bytes(6, draft_tokens=3) == 10 * 56 + 2 * 53 + 6 * 7 * 4 + 6 * 56 * 0.5
    assert small.total_bytes(6, 3) == 1100 + small.generation_bytes(6, 3)
    assert small.generation_bytes(6) == small.generation_bytes(6, 3) + 2 * 3
    assert replace(small, batch=4).generation_bytes(6) == 4 * small.generation_bytes(6)
    assert replace(small, candidate_bytes=3).generation_bytes(6) == small.generation_bytes(6) + 18
    assert small.generation_bytes(0) == 12 * 50


def test_chains_follow_the_formula():
    for plan in plans(CHAINS, MEMORY):
        assert plan.candidates == plan.draft_length
        assert plan.speed_up == pytest.approx(speed_up(0.7, plan.draft_length, 0.05))
        assert plan.total_bytes == MEMORY.total_bytes(plan.candidates)


def kept_tokens(tree, a):
    """Expected tokens of a check, where a tree is the set of its nodes' ranks along their paths."""
    return 1 + sum(a ** len(path) * (1 - a) ** sum(rank - 1 for rank in path) for path in tree)


@pytest.mark.parametrize("a", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_trees_are_the_best_of_their_size(a, n):
    speculation = Speculation(a, 0.0, max_draft_length=3, max_candidates=n, max_width=2)
    paths = [path for depth in (1, 2, 3) for path in product((1, 2), repeat=depth)]
    trees = [{()}]
    for _ in range(n):
        trees = [tree | {path} for tree in trees for path in paths if path not in tree and path[:-1] in tree]
    best = max(kept_tokens(tree - {()}, a) for tree in trees)
    found = max(p.tokens_per_check for p in plans(speculation, MEMORY) if p.candidates == n)
    assert found == pytest.approx(best)


def test_trees_beat_chains_of_a_poor_draft():
    poor = replace(TREES, acceptance=0.4)
    assert (
        fastest_plan(poor, MEMORY).speed_up > 1.1 * fastest_plan(replace(poor, max_width=1), MEMORY).speed_up
    )


def test_the_last_of_the_speed_up_takes_the_most_memory():
    fast, lean = fastest_plan(TREES, MEMORY), leanest_plan(TREES, MEMORY, 0.96)
    assert 0.96 * fast.speed_up <= lean.speed_up < fast.speed_up
    plain = MEMORY.generation_bytes(0)
    assert lean.generation_bytes - plain < 0.8 * (fast.generation_bytes - plain)
    assert leanest_plan(TREES, MEMORY, 1.0).speed_up == fast.speed_up


SPECULATIONS = st.builds(
    Speculation,
    acceptance=st.floats(0, 1),
    draft_cost=st.floats(0, 1),
    check_cost=st.floats(0, 0.1),
    max_draft_length=st.integers(1, 4),
    max_candidates=st.integers(1, 8),
    max_width=st.integers(1, 3),
)


@settings(deadline=None)
@given(SPECULATIONS, st.floats(0.0, 1.0))
def test_no_plan_keeps_the_share_with_less(speculation, keep):
    lean = leanest_plan(speculation, MEMORY, keep)
    known = list(plans(speculation, MEMORY))
    wanted = keep * max(plan.speed_up for plan in known)
    assert lean.speed_up >= wanted
    assert all(plan.total_bytes >= lean.total_bytes for plan in known if plan.speed_up >= wanted)


@settings(deadline=None)
@given(SPECULATIONS, st.floats(0, 1), st.floats(0, 1))
def test_a_tighter_budget_never_gives_more_candidates(speculation, first, second):
    low, high = MEMORY.total_bytes(1), MEMORY.total_bytes(8)
    tight, loose = (low + (high - low) * part for part in sorted((first, second)))
    small, large = (fastest_plan(speculation, MEMORY, budget) for budget in (tight, loose))
    assert small.total_bytes <= tight
    assert small.candidates <= large.candidates
    assert small.speed_up <= large.speed_up


def test_a_budget_that_holds_nothing_says_what_is_needed():
    with pytest.raises(EvaluationError, match=r"budget_bytes: 1e\+09 bytes do not hold .* 1\.41\S+ bytes"):
        fastest_plan(TREES, MEMORY, 1e9)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: speed_up(1.1, 1, 0), "acceptance"),
        (lambda: speed_up(0.5, -1, 0), "draft_length"),
        (lambda: speed_up(0.5, 1, -0.1), "draft_cost"),
        (lambda: Speculation(0.5, 0.1, max_width=0), "max_width"),
        (lambda: replace(MEMORY, vocabulary=0), "vocabulary"),
        (lambda: replace(MEMORY, draft_cache_bytes=-1), "draft_cache_bytes"),
        (lambda: MEMORY.generation_bytes(-1), "candidates"),
        (lambda: MEMORY.total_bytes(1, -1), "draft_tokens"),
        (lambda: leanest_plan(TREES, MEMORY, 1.5), "keep"),
    ],
)
def test_errors_name_the_argument(call, argument):
    with pytest.raises(EvaluationError, match=argument):
        call()
