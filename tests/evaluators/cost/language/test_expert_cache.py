import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.cost.language.expert_cache import (
    cache_size,
    consistency_of,
    expert_cache_cost,
    hit_rates,
    window_uses,
)
from spaces.errors import EvaluationError

FOUR_TOKENS = [[0, 1], [0, 2], [0, 1], [3, 1]]


def routing_consistency(routing, n_experts, segment):
    return consistency_of(window_uses(routing, n_experts, segment))


def segment_hit_rate(routing, n_experts, segment, cache_ratio):
    size = cache_size(cache_ratio, np.asarray(routing).shape[-1], n_experts)
    return hit_rates(routing, n_experts, segment)[size - 1]


@st.composite
def traces(draw):
    """A routing `(n_tokens, k)`, the number of experts, and a segment that is no longer."""
    n_experts, n_tokens = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    k = draw(st.integers(1, n_experts))
    token = st.permutations(range(n_experts)).map(lambda order: list(order[:k]))
    routing = draw(st.lists(token, min_size=n_tokens, max_size=n_tokens))
    return np.array(routing), n_experts, draw(st.integers(1, n_tokens))


def brute_force_consistency(routing, n_experts, segment):
    windows = [routing[i : i + segment] for i in range(len(routing) - segment + 1)]
    counts = [int((window == e).sum()) for window in windows for e in range(n_experts)]
    scores = []
    for threshold in range(1, segment + 1):
        chosen = [c for c in counts if c >= threshold]
        scores.append(2 * sum(chosen) / (segment * len(chosen) + sum(counts)))
    return max(scores)


def brute_force_hits(routing, n_experts, segment, size, cold_start):
    """Runs one cache of one size."""
    cache, seen, last_use, hits, clock = set(), set(), {}, 0, 0
    for position, token in enumerate(routing.tolist()):
        before, pending = set(cache), list(token)
        future = routing[position + 1 : position + segment].ravel().tolist()
        for expert in token:
            first = expert not in seen and len(seen) < size and not cold_start
            hits += expert in before or first
            seen.add(expert)
            if expert not in cache and len(cache) == size:
                cache.remove(min(cache, key=lambda e: ((pending + future).count(e), last_use[e])))
            cache.add(expert)
            pending.remove(expert)
            clock += 1
            last_use[expert] = clock
    return hits


def test_consistency_by_hand():
    # Windows of two tokens: counts (2 1 1 0), (2 1 1 0), (1 2 0 1); 12 uses in all.
    # t = 1: 2 x 12 / (2 x 9 + 12) = 0.8; t = 2: 2 x 6 / (2 x 3 + 12) = 2 / 3.
    found = routing_consistency(FOUR_TOKENS, 4, 2)
    assert found.srp == pytest.approx(0.8)
    assert found.cache_ratio == pytest.approx(18 / 12)


def test_the_same_experts_always_are_perfectly_consistent():
    found = routing_consistency([[2, 0]] * 10, 5, 4)
    assert (found.srp, found.cache_ratio) == (1.0, 1.0)
    layers = np.array([[[0, 1]] * 6, [[2, 3]] * 6])
    assert routing_consistency(layers, 4, 3).srp == 1.0


def test_hits_by_hand():
    # A cache of two that starts with 0 and 1 and looks no further than the current token. Token 2 hits 0, and 2 evicts
    # 1, unused for longer. Token 3 hits 0; 1 evicts 2. Token 4 misses 3, which evicts 0 since 1 is still to be used.
    rates = hit_rates(FOUR_TOKENS, 4, 1)
    assert rates[1] == pytest.approx((2 + 1 + 1 + 1) / 8)
    assert rates[3] == 1.0
    assert hit_rates(FOUR_TOKENS, 4, 1, cold_start=True)[3] == pytest.approx(4 / 8)


def test_looking_ahead_keeps_what_is_needed():
    routing = [[0], [1], [2], [0], [1], [2], [0]]
    blind, seeing = hit_rates(routing, 3, 1), hit_rates(routing, 3, 4)
    assert blind[1] == pytest.approx(2 / 7)  # the least recently used is always the one that comes next
    assert seeing[1] > blind[1]


@given(traces())
def test_consistency_equals_brute_force(trace):
    routing, n_experts, segment = trace
    found = routing_consistency(routing, n_experts, segment)
    assert found.srp == pytest.approx(brute_force_consistency(routing, n_experts, segment))
    assert 0 < found.srp <= 1
    assert found.cache_ratio <= n_experts / routing.shape[1] * (1 + 1e-12)


@settings(deadline=None)
@given(traces(), st.booleans())
def test_hit_rates_equal_those_of_single_caches(trace, cold_start):
    routing, n_experts, segment = trace
    rates = hit_rates(routing, n_experts, segment, cold_start)
    expected = [
        brute_force_hits(routing, n_experts, segment, size, cold_start) for size in range(1, n_experts + 1)
    ]
    np.testing.assert_allclose(rates, np.array(expected) / routing.size)


@given(traces())
def test_larger_caches_never_hit_less(trace):
    routing, n_experts, segment = trace
    rates = hit_rates(routing, n_experts, segment)
    assert (np.diff(rates) >= 0).all()
    assert rates[-1] == pytest.approx(1)
    cold = hit_rates(routing, n_experts, segment, cold_start=True)
    assert cold[-1] == pytest.approx(1 - len(np.unique(routing)) / routing.size)
    assert (cold <= rates + 1e-12).all()


def test_layers_are_averaged():
    routing = np.stack([np.array(FOUR_TOKENS), np.array([[0, 1]] * 4)])
    each = [hit_rates(layer, 4, 2) for layer in routing]
    np.testing.assert_allclose(hit_rates(routing, 4, 2), np.mean(each, axis=0))


def test_local_routing_needs_a_smaller_cache_than_scattered_routing():
    rng = np.random.default_rng(0)
    scattered = rng.permuted(np.tile(np.arange(16), (400, 1)), axis=1)[:, :2]
    favourites = np.repeat(rng.permuted(np.tile(np.arange(16), (20, 1)), axis=1)[:, :3], 20, axis=0)
    local = np.take_along_axis(favourites, rng.permuted(np.tile(np.arange(3), (400, 1)), axis=1)[:, :2], 1)
    assert routing_consistency(local, 16, 16).srp > routing_consistency(scattered, 16, 16).srp + 0.2
    assert segment_hit_rate(local, 16, 16, 2.0) > segment_hit_rate(scattered, 16, 16, 2.0) + 0.2


def test_the_rate_of_a_ratio_is_that_of_the_size():
    rates = hit_rates(FOUR_TOKENS, 4, 2)
    assert segment_hit_rate(FOUR_TOKENS, 4, 2, 1.0) == rates[1]
    assert segment_hit_rate(FOUR_TOKENS, 4, 2, 1.5) == rates[2]
    assert segment_hit_rate(FOUR_TOKENS, 4, 2, 9.0) == rates[3]


def test_the_cost_of_a_cache_by_hand():
    cost = expert_cache_cost(24, 4, 10e6, 1e9, cache_ratio=2.0, hit_rate=0.9, link_bytes_per_s=16e9)
    assert cost.resident_bytes == 1e9 + 24 * 2 * 4 * 10e6
    assert cost.load_s_per_token == pytest.approx(24 * 4 * 0.1 * 10e6 / 16e9)
    assert expert_cache_cost(24, 4, 10e6, 1e9, 2.0, 1.0, 16e9).load_s_per_token == 0


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: hit_rates([[0, 0]], 2, 1), "routing: a token uses an expert twice"),
        (lambda: hit_rates([[0, 2]], 2, 1), r"routing: experts must lie in \[0, 2\)"),
        (lambda: hit_rates([[0.5]], 2, 1), "routing: expected ints"),
        (lambda: hit_rates([0, 1], 2, 1), "routing: expected ints"),
        (lambda: hit_rates([[0]], 1, 0), "segment"),
        (lambda: routing_consistency([[0]], 1, 2), "segment: 2 tokens, but the routing has only 1"),
        (lambda: routing_consistency([[0]], 0, 1), "n_experts"),
        (lambda: segment_hit_rate([[0]], 2, 1, 0.5), "cache_ratio"),
        (lambda: expert_cache_cost(1, 1, 1, 1, 1, 1.2, 1), "hit_rate"),
        (lambda: expert_cache_cost(1, 1, 1, 1, 1, 1, 0), "link_bytes_per_s"),
        (lambda: expert_cache_cost(1, 1, -1, 1, 1, 1, 1), "expert_bytes"),
    ],
)
def test_errors_name_the_argument(call, argument):
    with pytest.raises(EvaluationError, match=argument):
        call()
