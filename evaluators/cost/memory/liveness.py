"""Liveness analysis: which tensors are live while each kernel runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from evaluators.cost.graph import Kernel, OpGraph
from evaluators.devices.device import Deployment
from spaces.errors import EvaluationError


@dataclass(frozen=True)
class Problem:
    """The memory planning problem: kernels and tensors by position, sizes rounded up to the alignment.

    A tensor lives from the kernel that writes it to the last one that reads it. Inputs of the graph live from
    the start; its outputs, and inputs that no kernel reads, live to the end. While a kernel runs, its inputs
    and outputs are live together.

    Attributes:
        reads: Per kernel, the tensors that it reads.
        writes: Per kernel, the tensors that it writes.
        sizes: Per tensor, its bytes.
        readers: Per tensor, the number of kernels that read it.
        given: Tensors that are live from the start.
        kept: Tensors that are live to the end.
        alone: Per kernel, bytes of streamed weights, which are live only while it runs.
        scratch: Per kernel, scratch bytes that it needs to overwrite its input in place; None if it cannot.
    """

    reads: tuple[tuple[int, ...], ...]
    writes: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]
    readers: tuple[int, ...]
    given: tuple[int, ...]
    kept: frozenset[int]
    alone: tuple[int, ...]
    scratch: tuple[int | None, ...]

    def overwritten(self, kernel: int, dying: Sequence[int]) -> int | None:
        """Returns the smallest input that the kernel's largest output fits into and overwrites in place.

        Args:
            kernel: Position of the kernel.
            dying: Its inputs that no later kernel reads.

        Returns:
            Position of the tensor; None if the kernel cannot work in place.
        """
        scratch = self.scratch[kernel]
        largest = max((self.sizes[t] for t in self.writes[kernel]), default=0)
        if scratch is None or scratch >= largest:
            return None
        return min((t for t in dying if self.sizes[t] >= largest), key=self.sizes.__getitem__, default=None)


@dataclass(frozen=True)
class Moment:
    """Liveness while one kernel runs.

    Attributes:
        kernel: Position of the kernel in the graph.
        before: Tensors that are live before it runs, its inputs included.
        dying: Its inputs that no later kernel reads.
        over: The dying input that its largest output overwrites in place; None if there is none.
        n_bytes: Total of live bytes.
    """

    kernel: int
    before: tuple[int, ...]
    dying: tuple[int, ...]
    over: int | None
    n_bytes: int


def problem_of(graph: OpGraph, deployment: Deployment) -> Problem:
    """Returns the memory planning problem of a graph."""
    names = tensor_names(graph)
    position = {name: i for i, name in enumerate(names)}
    reads = tuple(tuple(position[name] for name in k.inputs) for k in graph.kernels)
    writes = tuple(tuple(position[name] for name in k.outputs) for k in graph.kernels)
    readers = [0] * len(names)
    for tensor in (t for read in reads for t in read):
        readers[tensor] += 1
    written = {t for write in writes for t in write}
    given = tuple(t for t in range(len(names)) if t not in written)
    step = deployment.alignment_bytes
    streams = deployment.weights == "stream"
    return Problem(
        reads,
        writes,
        tuple(aligned(graph.tensor_bytes[name], step) for name in names),
        tuple(readers),
        given,
        frozenset(position[name] for name in graph.outputs if name in position).union(
            t for t in given if not readers[t]
        ),
        tuple(aligned(k.weight_bytes, step) if streams else 0 for k in graph.kernels),
        tuple(_scratch(k, deployment) for k in graph.kernels),
    )


def tensor_names(graph: OpGraph) -> tuple[str, ...]:
    """Returns the names of the activation tensors: inputs, then by first occurrence in kernels."""
    mentioned = (t for k in graph.kernels for t in (*k.inputs, *k.outputs))
    return tuple(dict.fromkeys((*graph.inputs, *mentioned)))


def aligned(n_bytes: int, alignment_bytes: int) -> int:
    """Rounds a size up to a multiple of the alignment."""
    return -(-n_bytes // alignment_bytes) * alignment_bytes


def _scratch(kernel: Kernel, deployment: Deployment) -> int | None:
    """Returns the scratch bytes that a kernel needs to overwrite its input in place; None if it cannot.

    A depthwise convolution copies a channel into scratch before it overwrites that channel, so it needs N + 1
    channels instead of N for the input and N for the output (Lin et al. 2020, "MCUNet", arXiv 2007.10319,
    section 3.2); with a stride the output fills only the beginning of the input's memory.
    """
    if kernel.kind not in deployment.in_place:
        return None
    if kernel.kind != "depthwise":
        return 0
    shape = kernel.geometry
    if shape is None or not shape.in_channels == shape.out_channels == shape.groups:
        return None
    return aligned(-(-kernel.input_bytes // shape.in_channels), deployment.alignment_bytes)


def file_order(problem: Problem, graph: OpGraph) -> tuple[int, ...]:
    """Returns the file's order, or the first topological order if fusion moved kernels.

    Raises:
        EvaluationError: The graph has a cycle.
    """
    producer = {t: k for k, write in enumerate(problem.writes) for t in write}
    dependencies = [{producer[t] for t in read if t in producer} for read in problem.reads]
    if all(not earlier or max(earlier) < k for k, earlier in enumerate(dependencies)):
        return tuple(range(len(dependencies)))
    followers: list[list[int]] = [[] for _ in dependencies]
    for kernel, earlier in enumerate(dependencies):
        for before in earlier:
            followers[before].append(kernel)
    left = [len(earlier) for earlier in dependencies]
    ready = [kernel for kernel, n in enumerate(left) if not n]
    heapify(ready)
    order = []
    while ready:
        order.append(heappop(ready))
        for kernel in followers[order[-1]]:
            left[kernel] -= 1
            if not left[kernel]:
                heappush(ready, kernel)
    if len(order) < len(dependencies):
        stuck = next(graph.kernels[k].name for k, n in enumerate(left) if n)
        raise EvaluationError(f"kernel {stuck!r} waits for its own output: the graph has a cycle")
    return tuple(order)


def moments(problem: Problem, order: Sequence[int]) -> Iterator[Moment]:
    """Yields the liveness while each kernel runs, in the order of execution `order`."""
    left = list(problem.readers)
    live = dict.fromkeys(problem.given)
    n_live = sum(problem.sizes[t] for t in problem.given)
    for kernel in order:
        before = tuple(live)
        for tensor in problem.reads[kernel]:
            left[tensor] -= 1
        dying = tuple(t for t in problem.reads[kernel] if not left[t] and t not in problem.kept)
        over = problem.overwritten(kernel, dying)
        sizes = [problem.sizes[t] for t in problem.writes[kernel]]
        n_live += sum(sizes)
        saved = 0 if over is None else max(sizes) - (problem.scratch[kernel] or 0)
        yield Moment(kernel, before, dying, over, n_live + problem.alone[kernel] - saved)
        live.update(dict.fromkeys(problem.writes[kernel]))
        unread = (t for t in problem.writes[kernel] if not left[t] and t not in problem.kept)
        for tensor in (*dying, *unread):
            del live[tensor]
            n_live -= problem.sizes[tensor]


def given_bytes(problem: Problem) -> int:
    """Returns the bytes of the tensors that are live before any kernel runs."""
    return sum(problem.sizes[t] for t in problem.given)


def peak_bytes(problem: Problem, order: Sequence[int]) -> int:
    """Returns the largest number of bytes that are live at once."""
    return max((m.n_bytes for m in moments(problem, order)), default=given_bytes(problem))
