"""Speculative decoding: how much faster a draft model makes a target model, and how much memory that takes.

The draft proposes candidates, the target checks all of them in one pass and keeps a prefix. Chains: Leviathan, Kalman,
Matias 2023, "Fast inference from transformers via speculative decoding", ICML. Trees, where the j-th alternative of a
token is right with probability a (1 - a)^(j - 1): Chen et al. 2024, "Sequoia". The question how little memory keeps
most of the speed-up is that of Yildirim and Chen 2025, "SpecMemo" (arXiv 2506.01986); the memory model is our own.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from evaluators.devices.arguments import number, share, whole
from spaces.errors import EvaluationError


@dataclass(frozen=True)
class SpeculativeMemory:
    """What a pair of models keeps in memory. All sizes are bytes.

    Attributes:
        target_weight_bytes: Weights of the target.
        draft_weight_bytes: Weights of the draft.
        target_cache_bytes: Key-value cache of the target for one token: 2 L H_kv d_h b / 8.
        draft_cache_bytes: Key-value cache of the draft for one token.
        vocabulary: Logits of one candidate.
        context: Tokens that are in the caches already.
        batch: Sequences at once.
        logit_bytes: Size of one logit.
        mask_bytes: Size of one entry of the attention mask of candidates against tokens.
        candidate_bytes: Buffers for one candidate, such as its hidden state.
    """

    target_weight_bytes: float
    draft_weight_bytes: float
    target_cache_bytes: float
    draft_cache_bytes: float
    vocabulary: int
    context: int
    batch: int = 1
    logit_bytes: float = 4.0
    mask_bytes: float = 1.0
    candidate_bytes: float = 0.0

    def __post_init__(self) -> None:
        for key in ("target_weight_bytes", "draft_weight_bytes", "target_cache_bytes", "draft_cache_bytes"):
            number(getattr(self, key), key)
        for key in ("logit_bytes", "mask_bytes", "candidate_bytes"):
            number(getattr(self, key), key)
        whole(self.vocabulary, "vocabulary", 1)
        whole(self.context, "context")
        whole(self.batch, "batch", 1)

    def generation_bytes(self, candidates: int, draft_tokens: int | None = None) -> float:
        """Memory besides weights: kv_t (T + N) + kv_d (T + g) + N V b_logit + N (T + N) b_mask + N b_candidate.

        Args:
            candidates: Candidates N that the target checks at once; 0 is decoding without speculation.
            draft_tokens: Candidates g that the draft's cache holds; None means all of them.

        Raises:
            EvaluationError: A negative count.
        """
        n = whole(candidates, "candidates")
        drafted = n if draft_tokens is None else whole(draft_tokens, "draft_tokens")
        caches = self.target_cache_bytes * (self.context + n) + self.draft_cache_bytes * (
            self.context + drafted
        )
        buffers = (
            self.vocabulary * self.logit_bytes + (self.context + n) * self.mask_bytes + self.candidate_bytes
        )
        return self.batch * (caches + n * buffers)

    def total_bytes(self, candidates: int, draft_tokens: int | None = None) -> float:
        """Memory M(N) with the weights of both models.

        Raises:
            EvaluationError: A negative count.
        """
        weights = self.target_weight_bytes + self.draft_weight_bytes
        return weights + self.generation_bytes(candidates, draft_tokens)


def speed_up(acceptance: float, draft_length: int, draft_cost: float) -> float:
    """Speed-up of a chain over plain decoding: (1 - a^(g + 1)) / ((1 - a)(c g + 1)), Leviathan et al., theorem 3.8.

    Args:
        acceptance: Probability a that a candidate is right, given that all before it are.
        draft_length: Candidates g in the chain.
        draft_cost: Time c of a draft step as a share of a target step.

    Raises:
        EvaluationError: An acceptance outside [0, 1], or a negative length or cost.
    """
    steps = whole(draft_length, "draft_length")
    tokens = sum(share(acceptance, "acceptance") ** i for i in range(steps + 1))
    return tokens / (number(draft_cost, "draft_cost") * steps + 1)


@dataclass(frozen=True)
class SpeculativePlan:
    """How to speculate.

    Attributes:
        draft_length: Draft steps before each check: the depth of the tree.
        width: Most alternatives of one token; 1 is a chain.
        candidates: Candidates that are checked at once.
        tokens_per_check: Tokens that one check yields on average, the target's own included.
        speed_up: Over plain decoding.
        generation_bytes: Memory besides the weights.
        total_bytes: Memory with the weights.
    """

    draft_length: int
    width: int
    candidates: int
    tokens_per_check: float
    speed_up: float
    generation_bytes: float
    total_bytes: float


@dataclass(frozen=True)
class Speculation:
    """A draft's quality and cost, and the plans that are considered.

    Attributes:
        acceptance: Probability that the draft's first choice is right.
        draft_cost: Time of a draft step as a share of a target step.
        check_cost: Time that each candidate adds to a check, as a share of a target step; 0 while the memory's
            bandwidth decides.
        max_draft_length: Longest draft.
        max_candidates: Most candidates.
        max_width: Most alternatives of one token.
    """

    acceptance: float
    draft_cost: float
    check_cost: float = 0.0
    max_draft_length: int = 10
    max_candidates: int = 64
    max_width: int = 4

    def __post_init__(self) -> None:
        share(self.acceptance, "acceptance")
        number(self.draft_cost, "draft_cost")
        number(self.check_cost, "check_cost")
        for key in ("max_draft_length", "max_candidates", "max_width"):
            whole(getattr(self, key), key, 1)


def plans(speculation: Speculation, memory: SpeculativeMemory) -> Iterator[SpeculativePlan]:
    """Yields the best tree of every (draft length, width, number of candidates), chains included."""
    for length in range(1, speculation.max_draft_length + 1):
        for width in range(1, speculation.max_width + 1):
            tokens, depth = 1.0, 0
            for n, (gain, level) in enumerate(_best_nodes(speculation, length, width), 1):
                tokens, depth = tokens + gain, max(depth, level)
                cost = speculation.draft_cost * depth + speculation.check_cost * n + 1
                sizes = memory.generation_bytes(n), memory.total_bytes(n)
                yield SpeculativePlan(depth, width, n, tokens, tokens / cost, *sizes)


def _best_nodes(speculation: Speculation, length: int, width: int) -> Iterator[tuple[float, int]]:
    """Yields (probability of being kept, depth) of a tree's nodes, likeliest first.

    A node is never likelier than its parent or its elder sibling, so the likeliest n nodes form the best tree of n.
    """
    a = speculation.acceptance
    heap = [(-a, 1, 1)]  # (-probability, depth, rank among siblings)
    for _ in range(speculation.max_candidates):
        if not heap:
            return
        negative, depth, rank = heapq.heappop(heap)
        yield -negative, depth
        if rank < width:
            heapq.heappush(heap, (negative * (1 - a), depth, rank + 1))
        if depth < length:
            heapq.heappush(heap, (negative * a, depth + 1, 1))


def fastest_plan(
    speculation: Speculation, memory: SpeculativeMemory, budget_bytes: float | None = None
) -> SpeculativePlan:
    """Returns the plan with the greatest speed-up, and the least memory among those, that fits the budget.

    A speed-up below 1 means that this draft had better not be used.

    Raises:
        EvaluationError: No plan fits; the message says what the smallest one takes.
    """
    known = list(plans(speculation, memory))
    least = min(plan.total_bytes for plan in known)
    if budget_bytes is not None and least > number(budget_bytes, "budget_bytes"):
        raise EvaluationError(
            f"budget_bytes: {budget_bytes:g} bytes do not hold both models, their caches and one candidate, which "
            f"take {least:g} bytes"
        )
    fitting = [plan for plan in known if budget_bytes is None or plan.total_bytes <= budget_bytes]
    return max(fitting, key=lambda plan: (plan.speed_up, -plan.total_bytes))


def leanest_plan(speculation: Speculation, memory: SpeculativeMemory, keep: float = 0.96) -> SpeculativePlan:
    """Returns the plan with the least memory that keeps a share `keep` of the greatest speed-up.

    Raises:
        EvaluationError: `keep` is not in [0, 1].
    """
    wanted = share(keep, "keep") * fastest_plan(speculation, memory).speed_up
    enough = (plan for plan in plans(speculation, memory) if plan.speed_up >= wanted)
    return min(enough, key=lambda plan: (plan.total_bytes, -plan.speed_up))
