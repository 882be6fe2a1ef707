"""The order of a few kernels with the smallest peak: exact by best-first search over down-sets, or a beam.

A down-set is a set of kernels that may have run; what is live follows from the set alone, so 2^n sets stand for n!
orders. A kernel that neither raises the peak nor leaves more memory in use than before is run at once: whatever an
order does before it would do with no more memory after it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

from evaluators.cost.memory.liveness import Problem

_Path = tuple["_Path", int] | None


@dataclass(frozen=True)
class Found:
    """A segment's order.

    Attributes:
        kernels: Positions within the segment.
        peak: Its peak, or what was `enough` if that is larger.
        is_best: Whether no other order has a smaller peak.
        steps: Steps that the exact search took.
    """

    kernels: tuple[int, ...]
    peak: int
    is_best: bool
    steps: int


class _State(NamedTuple):
    """A down-set and how it was reached; sets are bits. Smaller states are searched first."""

    peak: int
    n_left: int
    live: int
    ran: int
    ready: int
    path: _Path


class Segment:
    """Some kernels, by position within the segment.

    Args:
        problem: All kernels.
        kernels: Those of the segment, in a valid order.
        before: Tensors that are live when it begins.
        mortal: Those that it reads and nobody reads after it.
    """

    def __init__(
        self, problem: Problem, kernels: Sequence[int], before: Sequence[int], mortal: frozenset[int]
    ) -> None:
        sizes = problem.sizes
        made_by = {t: i for i, k in enumerate(kernels) for t in problem.writes[k]}
        readers: dict[int, int] = {}
        for i, kernel in enumerate(kernels):
            for t in problem.reads[kernel]:
                readers[t] = readers.get(t, 0) | 1 << i
        self.n = len(kernels)
        self._live = sum(sizes[t] for t in before)
        needs = [sum(1 << i for i in {made_by[t] for t in problem.reads[k] if t in made_by}) for k in kernels]
        self._ready = sum(1 << i for i, need in enumerate(needs) if not need)
        self._followers = [
            tuple((1 << j, need) for j, need in enumerate(needs) if need >> i & 1) for i in range(self.n)
        ]
        self._frees = [
            tuple((readers[t], sizes[t]) for t in problem.reads[k] if t in mortal) for k in kernels
        ]
        self._adds = [sum(sizes[t] for t in problem.writes[k]) for k in kernels]
        self._alone = [problem.alone[k] for k in kernels]
        self._unread = [
            sum(sizes[t] for t in problem.writes[k] if not problem.readers[t] and t not in problem.kept)
            for k in kernels
        ]
        largest = [max((sizes[t] for t in problem.writes[k]), default=0) for k in kernels]
        scratch = [problem.scratch[k] for k in kernels]
        self._largest = largest
        self._saves = [0 if s is None else max(w - s, 0) for w, s in zip(largest, scratch, strict=True)]
        passing = set(before) - mortal
        self.bound = max(self._live, *self._alone_bounds(problem, kernels, passing))

    def _alone_bounds(self, problem: Problem, kernels: Sequence[int], passing: set[int]) -> Iterator[int]:
        """Per kernel, what is live whenever it runs: what it reads and writes, and what passes the segment by."""
        passed = sum(problem.sizes[t] for t in passing)
        for i, kernel in enumerate(kernels):
            own = sum(problem.sizes[t] for t in problem.reads[kernel] if t not in passing)
            fits = any(size >= self._largest[i] for _, size in self._frees[i])
            yield passed + own + self._adds[i] + self._alone[i] - (self._saves[i] if fits else 0)

    def search(self, peak: int, enough: int, steps: int) -> Found:
        """Searches an order with a smaller peak than the segment's own.

        Args:
            peak: Peak of the segment's own order.
            enough: Smaller peaks than this are not worth anything.
            steps: Limit, once for the exact search and once for the beam.
        """
        own = tuple(range(self.n))
        goal, taken = self._exact(peak, enough, steps)
        if goal is not None:
            return Found(_kernels(goal.path), goal.peak, True, taken)
        if taken < steps:  # all was seen
            return Found(own, peak, True, taken)
        goal = self._beam(peak, enough, steps)
        return (
            Found(own, peak, False, taken)
            if goal is None
            else Found(_kernels(goal.path), goal.peak, False, taken)
        )

    def _start(self, enough: int) -> _State:
        return _State(max(self._live, enough), self.n, self._live, 0, self._ready, None)

    def _exact(self, limit: int, enough: int, steps: int) -> tuple[_State | None, int]:
        """Dijkstra's search for the path with the smallest peak below `limit`; also says how many steps it took."""
        heap = [self._start(enough)]
        reached: dict[int, int] = {}
        taken = 0
        while heap and taken < steps:
            state = heappop(heap)
            if not state.n_left:
                return state, taken
            nexts = self._nexts(state, limit)
            taken += state.ready.bit_count()
            for following in nexts:
                if following.peak < reached.get(following.ran, limit):
                    reached[following.ran] = following.peak
                    heappush(heap, following)
        return None, taken if heap else min(taken, steps - 1)

    def _beam(self, limit: int, enough: int, steps: int) -> _State | None:
        """Keeps, after every kernel, as many of the best down-sets as the steps allow."""
        level = [self._start(enough)]
        while level and level[0].n_left:
            reached: dict[int, _State] = {}
            taken = 0
            for state in sorted(level, key=lambda s: s[:4]):
                if taken * self.n >= steps:
                    break
                taken += state.ready.bit_count()
                for following in self._nexts(state, limit):
                    known = reached.get(following.ran)
                    if known is None or following.peak < known.peak:
                        reached[following.ran] = following
            level = list(reached.values())
        return min(level, key=lambda s: s.peak, default=None)

    def _nexts(self, state: _State, limit: int) -> list[_State]:
        """The down-sets after one more kernel, as far as their peak stays below `limit`."""
        found = []
        ready = state.ready
        while ready:
            bit = ready & -ready
            ready ^= bit
            kernel = bit.bit_length() - 1
            during, live = self._run(kernel, state.live, ~(state.ran | bit))
            if during >= limit:
                continue
            peak = max(state.peak, during)
            ran = state.ran | bit
            could = state.ready ^ bit
            for follower, needs in self._followers[kernel]:
                if not needs & ~ran:
                    could |= follower
            following = _State(peak, state.n_left - 1, live, ran, could, (state.path, kernel))
            if peak == state.peak and live <= state.live:
                return [following]
            found.append(following)
        return found

    def _run(self, kernel: int, live: int, waiting: int) -> tuple[int, int]:
        """Bytes that are live while the kernel runs, and afterwards; `waiting` are the bits of those still to run."""
        freed, fits = 0, False
        for readers, size in self._frees[kernel]:
            if not readers & waiting:
                freed += size
                fits = fits or size >= self._largest[kernel]
        during = live + self._adds[kernel]
        saved = self._saves[kernel] if fits else 0
        return during + self._alone[kernel] - saved, during - self._unread[kernel] - freed


def _kernels(path: _Path) -> tuple[int, ...]:
    kernels = []
    while path is not None:
        path, kernel = path
        kernels.append(kernel)
    return tuple(reversed(kernels))
