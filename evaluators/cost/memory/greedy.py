"""Offsets of buffers in one arena, as TensorFlow Lite Micro's greedy planner finds them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from evaluators.cost.memory.liveness import Moment, Problem
from evaluators.cost.memory.timeline import scratch_of, weights_of


@dataclass(frozen=True)
class Buffer:
    """Memory that something needs for some time.

    Attributes:
        name: What it holds.
        n_bytes: Its size.
        first: First step that needs it.
        last: Last step that needs it.
    """

    name: str
    n_bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class Arena:
    """Where the buffers are.

    Attributes:
        n_bytes: Size of the arena.
        offsets: Offset of each buffer, by name.
    """

    n_bytes: int
    offsets: Mapping[str, int]


def place(groups: Iterable[Sequence[Buffer]]) -> Arena:
    """Places the largest buffers first, each in the lowest gap among those that are needed at the same time.

    TensorFlow Lite Micro, `greedy_memory_planner.cc`; of buffers of one size it places the last one first. Buffers
    that write over each other form a group, which begins at one offset.
    """
    ordered = list(groups)[::-1]
    ordered.sort(key=lambda group: -max(buffer.n_bytes for buffer in group))
    offsets: dict[Buffer, int] = {}
    end = 0
    for group in ordered:
        taken = set()  # offsets [low, high) where the group must not begin
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
    problem: Problem, happened: Sequence[Moment], tensors: Sequence[str], kernels: Sequence[str]
) -> list[list[Buffer]]:
    """The buffers of a run, grouped by what writes over what; empty ones are left out.

    Args:
        problem: What was planned.
        happened: Its moments, in order.
        tensors: Names of the tensors by position.
        kernels: Names of the kernels by position.
    """
    end = max(len(happened) - 1, 0)
    first, last = dict.fromkeys(problem.given, 0), dict.fromkeys(problem.kept, end)
    group_of: dict[int, int] = {}
    alone: list[list[Buffer]] = []
    for step, moment in enumerate(happened):
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
