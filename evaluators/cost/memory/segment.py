"""The order of a few kernels with the smallest peak: best-first search over down-sets, or a beam search.

A down-set is a set of kernels that contains all dependencies of its members, i.e. that can have run so far.
The live tensors follow from the set alone, so 2^n sets represent n! orders. A kernel that neither raises the
peak nor leaves more memory in use than before is scheduled immediately: postponing it cannot lower any peak.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

from evaluators.cost.memory.liveness import Problem

_Path = tuple["_Path", int] | None


@dataclass(frozen=True)
class SegmentOrder:
    """An execution order of a segment.

    Attributes:
        kernels: Positions within the segment, in the order of execution.
        peak: Its peak in bytes, or the search's `enough` if that is larger.
        is_best: Whether it is proven that no other order has a smaller peak.
        steps: Steps that the exact search took.
    """

    kernels: tuple[int, ...]
    peak: int
    is_best: bool
    steps: int


class _State(NamedTuple):
    """A down-set and the path to it; sets are bit masks. Smaller states are searched first.

    `peak` and `live` are bytes so far and now, `n_left` the number of kernels still to run, `ran` the
    down-set, `ready` the kernels that can run next.
    """

    peak: int
    n_left: int
    live: int
    ran: int
    ready: int
    path: _Path


class Segment:
    """Consecutive kernels that are ordered independently of all others.

    Args:
        problem: All kernels and tensors.
        kernels: The kernels of the segment, in a valid order.
        before: Tensors that are live when the segment begins.
        mortal: Tensors that the segment reads and that no later kernel reads.

    Attributes:
        n: Number of its kernels.
        bound: Lower bound of the peak of every order, in bytes.
    """

    def __init__(
        self, problem: Problem, kernels: Sequence[int], before: Sequence[int], mortal: frozenset[int]
    ) -> None:
        sizes = problem.sizes
        producer = {t: i for i, k in enumerate(kernels) for t in problem.writes[k]}
        readers: dict[int, int] = {}
        for i, kernel in enumerate(kernels):
            for t in problem.reads[kernel]:
                readers[t] = readers.get(t, 0) | 1 << i
        self.n = len(kernels)
        self._live = sum(sizes[t] for t in before)
        dependencies = [
            sum(1 << i for i in {producer[t] for t in problem.reads[k] if t in producer}) for k in kernels
        ]
        self._ready = sum(1 << i for i, mask in enumerate(dependencies) if not mask)
        self._followers = [
            tuple((1 << j, mask) for j, mask in enumerate(dependencies) if mask >> i & 1)
            for i in range(self.n)
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
        surviving = set(before) - mortal
        self.bound = max(self._live, *self._kernel_bounds(problem, kernels, surviving))

    def _kernel_bounds(self, problem: Problem, kernels: Sequence[int], surviving: set[int]) -> Iterator[int]:
        """Yields, per kernel, the bytes that are live in every order while it runs.

        These are its inputs and outputs, and the tensors that stay live throughout the segment (`surviving`).
        """
        always_live = sum(problem.sizes[t] for t in surviving)
        for i, kernel in enumerate(kernels):
            own = sum(problem.sizes[t] for t in problem.reads[kernel] if t not in surviving)
            fits = any(size >= self._largest[i] for _, size in self._frees[i])
            yield always_live + own + self._adds[i] + self._alone[i] - (self._saves[i] if fits else 0)

    def search(self, peak: int, enough: int, steps: int) -> SegmentOrder:
        """Searches for an order with a smaller peak than the segment's given order.

        Args:
            peak: Peak of the given order in bytes.
            enough: Peak below which a further reduction does not help.
            steps: Limit of the steps, once for the exact search and once for the beam search.
        """
        own = tuple(range(self.n))
        goal, taken = self._exact(peak, enough, steps)
        if goal is not None:
            return SegmentOrder(_kernels(goal.path), goal.peak, True, taken)
        if taken < steps:  # the search was exhaustive
            return SegmentOrder(own, peak, True, taken)
        goal = self._beam(peak, enough, steps)
        return (
            SegmentOrder(own, peak, False, taken)
            if goal is None
            else SegmentOrder(_kernels(goal.path), goal.peak, False, taken)
        )

    def _start(self, enough: int) -> _State:
        return _State(max(self._live, enough), self.n, self._live, 0, self._ready, None)

    def _exact(self, limit: int, enough: int, steps: int) -> tuple[_State | None, int]:
        """Searches for the path with the smallest peak below `limit` (Dijkstra); returns end and steps."""
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
        """Beam search: after every kernel, extends as many of the best down-sets as the steps allow."""
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
        """Returns the states after one more kernel whose peaks stay below `limit`."""
        states = []
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
            ready_next = state.ready ^ bit
            for follower, dependencies in self._followers[kernel]:
                if not dependencies & ~ran:
                    ready_next |= follower
            following = _State(peak, state.n_left - 1, live, ran, ready_next, (state.path, kernel))
            if peak == state.peak and live <= state.live:
                return [following]
            states.append(following)
        return states

    def _run(self, kernel: int, live: int, waiting: int) -> tuple[int, int]:
        """Returns the live bytes during and after the kernel; `waiting` masks the later kernels."""
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
