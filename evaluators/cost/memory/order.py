"""Search for the execution order with the smallest memory peak.

A kernel that every other kernel must precede or follow has the same position in every order. The kernels
between two such positions form a segment, which can be ordered independently; segments whose order cannot
change the overall peak keep the order of the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from evaluators.cost.memory.liveness import Moment, Problem, moments
from evaluators.cost.memory.segment import Segment

# Limit of the search in steps of 2 to 5 us, once for all exact searches and once for all beam searches.
STEPS = 60_000


@dataclass(frozen=True)
class Order:
    """An execution order.

    Attributes:
        kernels: Positions in the graph, in the order of execution.
        is_best: Whether it is proven that no other order has a smaller peak.
    """

    kernels: tuple[int, ...]
    is_best: bool


def best_order(problem: Problem, start: Sequence[int], every: bool = False, steps: int = STEPS) -> Order:
    """Searches for an order with a small peak, never larger than that of `start`.

    Args:
        problem: The kernels and tensors.
        start: A valid order; segments keep it unless a better one is found.
        every: Whether to minimise the peak of every segment, not only of those that determine the overall
            peak.
        steps: Limit of the search steps.
    """
    if _is_forced(problem, start):
        return Order(tuple(start), True)
    timeline = list(moments(problem, start))
    spans = _spans(problem, start)
    segments = _segments(problem, start, timeline, spans)
    peaks = [max(m.n_bytes for m in timeline[first:end]) for first, end in spans]
    floor = max(segment.bound if segment else peak for segment, peak in zip(segments, peaks, strict=True))
    order, proven = list(start), True
    n_left = sum(segment.n for segment in segments if segment)
    for i in sorted(range(len(spans)), key=lambda i: -peaks[i]):
        segment, (first, end) = segments[i], spans[i]
        if segment is None:
            continue
        enough = segment.bound if every else floor
        if peaks[i] > enough:
            share = max(steps * segment.n // n_left, steps // 2)
            searched = segment.search(peaks[i], enough, share)
            order[first:end] = [start[first + k] for k in searched.kernels]
            proven, steps, floor = (
                proven and searched.is_best,
                steps - searched.steps,
                max(floor, searched.peak),
            )
        n_left -= segment.n
    return Order(tuple(order), proven)


def _is_forced(problem: Problem, order: Sequence[int]) -> bool:
    """Whether every kernel reads an output of its predecessor, so that no other order is valid."""
    return all(not set(problem.writes[a]).isdisjoint(problem.reads[b]) for a, b in pairwise(order))


def _segments(
    problem: Problem, order: Sequence[int], timeline: Sequence[Moment], spans: Sequence[tuple[int, int]]
) -> list[Segment | None]:
    """Returns the segment of each span; None for a span of one kernel."""
    last_read = {t: place for place, kernel in enumerate(order) for t in problem.reads[kernel]}
    segments: list[Segment | None] = []
    for first, end in spans:
        if end - first == 1:
            segments.append(None)
            continue
        kernels = order[first:end]
        read = {t for k in kernels for t in problem.reads[k]}
        mortal = frozenset(t for t in read if last_read[t] < end and t not in problem.kept)
        segments.append(Segment(problem, kernels, timeline[first].before, mortal))
    return segments


def _spans(problem: Problem, order: Sequence[int]) -> list[tuple[int, int]]:
    """Cuts the order into spans [first, end): kernels with a fixed position, and segments between."""
    written_at = {t: place for place, kernel in enumerate(order) for t in problem.writes[kernel]}
    last = len(order) - 1
    before = [{written_at[t] for t in problem.reads[k] if t in written_at} for k in order]
    after: list[set[int]] = [set() for _ in order]  # counted from the end
    for place, earlier in enumerate(before):
        for j in earlier:
            after[last - j].add(last - place)
    forks = _joins(after)
    fixed = [join and forks[last - place] for place, join in enumerate(_joins(before))]
    cuts = sorted(
        {0, len(order), *(c for place in range(len(order)) if fixed[place] for c in (place, place + 1))}
    )
    return list(pairwise(cuts))


def _joins(before: Sequence[set[int]]) -> list[bool]:
    """Returns, per position, whether all earlier kernels must precede the kernel there."""
    ends: set[int] = set()  # positions that no kernel so far depends on
    joins = []
    for place, earlier in enumerate(before):
        joins.append(ends <= earlier)
        ends -= earlier
        ends.add(place)
    return joins
