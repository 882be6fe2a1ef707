"""The most bytes of activations that are live at once, for many candidates in one go."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from evaluators.cost.graph import Kernel, OpGraph
from evaluators.cost.memory.liveness import file_order, problem_of, tensor_names
from evaluators.cost.memory.order import best_order
from evaluators.devices.device import Deployment

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Versions:
    """The versions of one kernel that the candidates need.

    Attributes:
        kernels: The versions.
        chosen: Which of them each candidate has, `(n_candidates,)` int64.
    """

    kernels: tuple[Kernel, ...]
    chosen: Ints


def live_bytes(
    graph: OpGraph, versions: Sequence[Versions], tensor_bytes: Mapping[str, Ints], deployment: Deployment
) -> tuple[Ints, Ints]:
    """Returns the most that is live at once, without and with streamed weights, each `(n_candidates,)` int64.

    These are the moments of `plan_memory`, over one order of execution: the file's, or the best one for `graph`.

    Args:
        graph: What the candidates have in common.
        versions: Of each of its kernels.
        tensor_bytes: Of every activation, `(n_candidates,)` or `(1,)` int64.
        deployment: How the runtime lays out memory; buffers are not placed, and no patches are run.
    """
    problem = problem_of(graph, deployment)
    order = file_order(problem, graph)
    if deployment.order == "best":
        order = best_order(problem, order).kernels
    step = deployment.alignment_bytes
    sizes = [-(-tensor_bytes[name] // step) * step for name in tensor_names(graph)]
    alone, scratch = _of_versions(graph, versions, deployment)
    left = list(problem.readers)
    live = total(sizes[t] for t in problem.given)
    peak = peak_with_weights = live
    for k in order:
        for tensor in problem.reads[k]:
            left[tensor] -= 1
        dying = [t for t in problem.reads[k] if not left[t] and t not in problem.kept]
        unread = [t for t in problem.writes[k] if not left[t] and t not in problem.kept]
        written = [sizes[t] for t in problem.writes[k]]
        live = live + total(written)
        now = live - _saved(written, [sizes[t] for t in dying], scratch[k])
        peak, peak_with_weights = np.maximum(peak, now), np.maximum(peak_with_weights, now + alone[k])
        live = live - total(sizes[t] for t in (*dying, *unread))
    return peak, peak_with_weights


def total(terms: Iterable[Ints]) -> Ints:
    """Sums arrays of the shapes `(n,)` and `(1,)`."""
    return reduce(np.add, terms, np.zeros(1, np.int64))


def _saved(written: Sequence[Ints], dying: Sequence[Ints], scratch: Ints | None) -> Ints | int:
    """Bytes of the largest output that need no memory of their own: it overwrites a dying input that is as large."""
    if scratch is None or not written or not dying:
        return 0
    wanted, largest = reduce(np.maximum, written), reduce(np.maximum, dying)
    saved: Ints = np.where((largest >= wanted) & (scratch < wanted), wanted - scratch, 0)
    return saved


def _of_versions(
    graph: OpGraph, versions: Sequence[Versions], deployment: Deployment
) -> tuple[list[Ints], list[Ints | None]]:
    """What each candidate's kernels need alone, and as scratch to work in place."""
    every = problem_of(replace(graph, kernels=tuple(k for v in versions for k in v.kernels)), deployment)
    alone: list[Ints] = []
    scratch: list[Ints | None] = []
    first = 0
    for version in versions:
        end = first + len(version.kernels)
        alone.append(np.asarray(every.alone[first:end], np.int64)[version.chosen])
        needed = every.scratch[
            first:end
        ]  # a kernel's class, which decides about None, is that of all its versions
        scratch.append(None if None in needed else np.asarray(needed, np.int64)[version.chosen])
        first = end
    return alone, scratch
