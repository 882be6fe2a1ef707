"""Mixture-of-experts models whose experts do not all fit: how local is the routing, and what does a cache cost.

Liang et al. 2025, "Not all models suit expert offloading: on local routing consistency of mixture-of-expert models"
(arXiv 2505.16056).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluators.devices.arguments import number, positive, share, whole
from spaces.errors import EvaluationError


@dataclass(frozen=True)
class RoutingConsistency:
    """How well a fixed set of experts serves a segment of tokens.

    Attributes:
        srp: Segment routing best performance, 0 to 1: the best F1 score of such sets.
        cache_ratio: Experts in the best set, as a multiple of those that a token uses (rho).
    """

    srp: float
    cache_ratio: float


def window_uses(routing: ArrayLike, n_experts: int, segment: int) -> NDArray[np.int64]:
    """Returns how many windows use an expert 0, 1, ..., `segment` times, `(segment + 1,)`, of all experts; several texts' may be added.

    Args:
        routing: Expert of each choice, ints `(n_tokens, k)` or `(n_layers, n_tokens, k)`.
        n_experts: Experts a layer.
        segment: Tokens m of a window.

    Raises:
        EvaluationError: The routing is malformed, or shorter than a segment.
    """
    layers = _checked(routing, n_experts)
    length = whole(segment, "segment", 1)
    if length > layers.shape[1]:
        raise EvaluationError(f"segment: {length} tokens, but the routing has only {layers.shape[1]}")
    counts = (np.bincount(_window_counts(layer, n_experts, length), minlength=length + 1) for layer in layers)
    return np.asarray(sum(counts))


def consistency_of(uses: NDArray[np.number]) -> RoutingConsistency:
    """Returns the segment routing best performance of counts, as `window_uses` gives them.

    With c the uses of an expert in a window, the set of experts used at least t times scores
    F1(t) = 2 sum_{c >= t} c / (m #{c >= t} + sum c), all windows, layers and experts together; SRP(m) = max_t F1(t).
    """
    length = len(uses) - 1
    thresholds = np.arange(length + 1)
    matches = np.cumsum((uses * thresholds)[::-1])[::-1][1:]
    members = np.cumsum(uses[::-1])[::-1][1:]
    scores = 2 * matches / (length * members + matches[0])
    best = int(np.argmax(scores))
    return RoutingConsistency(float(scores[best]), float(length * members[best] / matches[0]))


def _window_counts(layer: NDArray[np.int64], n_experts: int, length: int) -> NDArray[np.int64]:
    """Uses of every expert in every window, flat."""
    used = np.zeros((layer.shape[0] + 1, n_experts), np.int64)
    np.put_along_axis(used[1:], layer, 1, axis=1)
    before = np.cumsum(used, axis=0)
    return np.asarray(before[length:] - before[:-length]).ravel()


def hit_rates(
    routing: ArrayLike, n_experts: int, segment: int, cold_start: bool = False
) -> NDArray[np.float64]:
    """Segment cache best hit rate (SCH) for every cache size at once.

    A cache of one layer evicts the expert with the fewest uses in the segment of m tokens that begins with the
    current one, the longest unused among equals. A choice is a hit if its expert was there before the token came. One
    pass over the trace gives all sizes, since such caches contain all smaller ones (stack distances: Mattson et al.
    1970, "Evaluation techniques for storage hierarchies", IBM Systems Journal 9).

    Args:
        routing: Expert of each choice, ints `(n_tokens, k)` or `(n_layers, n_tokens, k)`; layers are averaged.
        n_experts: Experts a layer.
        segment: Tokens m that the cache looks ahead.
        cold_start: Whether the cache is empty at first; else it starts with the experts that are used first.

    Returns:
        Hit rates `(n_experts,)` float64 of caches of 1, 2, ..., n_experts experts; they never fall.

    Raises:
        EvaluationError: The routing is malformed.
    """
    layers = _checked(routing, n_experts)
    length = whole(segment, "segment", 1)
    hits = sum(_stack_hits(layer, n_experts, length, cold_start) for layer in layers)
    return np.cumsum(hits) / layers.size


def _stack_hits(layer: NDArray[np.int64], n_experts: int, length: int, cold_start: bool) -> NDArray[np.int64]:
    """Choices of one layer by the smallest cache in which they hit, `(n_experts,)`."""
    hits = np.zeros(n_experts, np.int64)
    tokens = layer.tolist()
    ahead, last_use = [0] * n_experts, [0] * n_experts
    stack: list[int] = []  # the first s experts are the content of a cache of s
    for expert in (e for token in tokens[:length] for e in token):
        ahead[expert] += 1
    clock = 0
    for position, token in enumerate(tokens):
        place = {expert: depth for depth, expert in enumerate(stack)}
        for expert in token:
            if expert in place:
                hits[place[expert]] += 1
            elif not cold_start:
                hits[len(stack)] += 1
            _use(stack, expert, ahead, last_use)
            clock += 1
            ahead[expert] -= 1
            last_use[expert] = clock
        for expert in tokens[position + length] if position + length < len(tokens) else ():
            ahead[expert] += 1
    return hits


def _use(stack: list[int], expert: int, ahead: list[int], last_use: list[int]) -> None:
    """Moves an expert to the top; at every depth the worthier of the two that claim it stays, the other sinks."""
    if not stack:
        stack.append(expert)
    if stack[0] == expert:
        return
    sinking, stack[0] = stack[0], expert
    for depth in range(1, len(stack)):
        resident = stack[depth]
        if resident == expert:
            stack[depth] = sinking
            return
        if (ahead[resident], last_use[resident]) < (ahead[sinking], last_use[sinking]):
            stack[depth], sinking = sinking, resident
    stack.append(sinking)


def cache_size(cache_ratio: float, active: int, n_experts: int) -> int:
    """Returns how many experts of a layer a cache holds: `cache_ratio` times those that a token uses, rounded down, all at most.

    Raises:
        EvaluationError: The cache holds less than one expert.
    """
    size = min(int(positive(cache_ratio, "cache_ratio") * active + 1e-9), n_experts)
    if size < 1:
        raise EvaluationError(f"cache_ratio: {cache_ratio!r} times {active} experts is less than one expert")
    return size


@dataclass(frozen=True)
class ExpertCacheCost:
    """What a cache of experts costs.

    Attributes:
        resident_bytes: Memory: shared weights and the cached experts of all layers.
        load_s_per_token: Time that loading the others adds to a token.
    """

    resident_bytes: float
    load_s_per_token: float


def expert_cache_cost(
    n_layers: int,
    active: int,
    expert_bytes: float,
    shared_bytes: float,
    cache_ratio: float,
    hit_rate: float,
    link_bytes_per_s: float,
) -> ExpertCacheCost:
    """Memory and time: W_shared + L rho k W_e, and L k (1 - SCH) W_e / BW for a token.

    Args:
        n_layers: Layers L with experts.
        active: Experts k that a token uses in a layer.
        expert_bytes: Size W_e of one expert.
        shared_bytes: Size of everything that always stays.
        cache_ratio: Cached experts of a layer, rho, as a multiple of `active`.
        hit_rate: SCH(m, rho).
        link_bytes_per_s: Bandwidth of the link that experts are loaded through.

    Raises:
        EvaluationError: A count, size or rate that makes no sense; the message names it.
    """
    choices = whole(n_layers, "n_layers") * whole(active, "active", 1) * number(expert_bytes, "expert_bytes")
    resident = number(shared_bytes, "shared_bytes") + number(cache_ratio, "cache_ratio") * choices
    missed = choices * (1 - share(hit_rate, "hit_rate"))
    return ExpertCacheCost(resident, missed / positive(link_bytes_per_s, "link_bytes_per_s"))


def _checked(routing: ArrayLike, n_experts: int) -> NDArray[np.int64]:
    """Returns the routing as `(n_layers, n_tokens, k)`."""
    experts = whole(n_experts, "n_experts", 1)
    given: NDArray[Any] = np.asarray(routing)
    if given.ndim not in (2, 3) or given.size == 0 or not np.issubdtype(given.dtype, np.integer):
        raise EvaluationError(
            f"routing: expected ints (n_tokens, k) or (n_layers, n_tokens, k), got {given.dtype} {given.shape}"
        )
    layers = given.reshape(-1, *given.shape[-2:]).astype(np.int64)
    if layers.min() < 0 or layers.max() >= experts:
        raise EvaluationError(
            f"routing: experts must lie in [0, {experts}), got {layers.min()} to {layers.max()}"
        )
    if (np.diff(np.sort(layers, axis=2), axis=2) == 0).any():
        raise EvaluationError("routing: a token uses an expert twice; the k experts of a token must differ")
    return layers
