"""Buffer offsets in one arena, as TensorFlow Lite Micro's greedy planner assigns them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from evaluators.cost.memory.liveness import Moment, Problem
from evaluators.cost.memory.timeline import scratch_of, weights_of


@dataclass(frozen=True)
class Buffer:
    """A buffer and its lifetime.

    Attributes:
        name: Name of the tensor, scratch or weights that it holds.
        n_bytes: Its size.
        first: First step of its lifetime.
        last: Last step of its lifetime, inclusive.
    """

    name: str
    n_bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class Arena:
    """A placement of buffers.

    Attributes:
        n_bytes: Size of the arena.
        offsets: Offset of each buffer in bytes, by name.
    """

    n_bytes: int
    offsets: Mapping[str, int]


def place(groups: Iterable[Sequence[Buffer]]) -> Arena:
    """Places the largest buffers first, each in the lowest gap between buffers of overlapping lifetimes.

    As TensorFlow Lite Micro's `greedy_memory_planner.cc`; of buffers of equal size it places the last one
    first. Buffers that overwrite each other in place form a group, which shares one offset.
    """
    ordered = list(groups)[::-1]
    ordered.sort(key=lambda group: -max(buffer.n_bytes for buffer in group))
    offsets: dict[Buffer, int] = {}
    end = 0
    for group in ordered:
        taken = set()  # ranges [low, high) of offsets that are not possible for the group
        for own in group:
            for other, at in offsets.items():
                if other.first <= own.last and own.first <= other.last:
                    taken.add((at - own.n_bytes + 1, at + other.n_bytes))
        offset = 0
        for low, high in sorted(taken):
            if low > offset:
                break
            offset = max(offset, high)
        for own in group:
            offsets[own] = offset
            end = max(end, offset + own.n_bytes)
    return Arena(end, {buffer.name: offset for buffer, offset in offsets.items()})


def buffers(
    problem: Problem, timeline: Sequence[Moment], tensors: Sequence[str], kernels: Sequence[str]
) -> list[list[Buffer]]:
    """Returns the nonempty buffers of a run; those that overwrite each other in place form a group.

    Args:
        problem: The kernels and tensors by position.
        timeline: Liveness at each step, in the order of execution.
        tensors: Names of the tensors by position.
        kernels: Names of the kernels by position.
    """
    end = max(len(timeline) - 1, 0)
    first, last = dict.fromkeys(problem.given, 0), dict.fromkeys(problem.kept, end)
    group_of: dict[int, int] = {}
    alone: list[list[Buffer]] = []
    for step, moment in enumerate(timeline):
        kernel = moment.kernel
        first |= dict.fromkeys(problem.writes[kernel], step)
        for t in (*problem.reads[kernel], *problem.writes[kernel]):
            last.setdefault(t, step)
            last[t] = max(last[t], step)
        own = [Buffer(weights_of(kernels[kernel]), problem.alone[kernel], step, step)]
        if moment.over is not None:
            largest = max(problem.writes[kernel], key=problem.sizes.__getitem__)
            group_of[largest] = group_of.get(moment.over, moment.over)
            own.append(Buffer(scratch_of(kernels[kernel]), problem.scratch[kernel] or 0, step, step))
        alone += [[buffer] for buffer in own if buffer.n_bytes]
    groups: dict[int, list[Buffer]] = {}
    for t, born in first.items():
        if problem.sizes[t]:
            buffer = Buffer(tensors[t], problem.sizes[t], born, last[t])
            groups.setdefault(group_of.get(t, t), []).append(buffer)
    return [*groups.values(), *alone]
