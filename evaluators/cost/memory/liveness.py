"""Which tensors are live while each kernel runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from evaluators.cost.graph import Kernel, OpGraph
from evaluators.devices.device import Deployment
from spaces.errors import EvaluationError


@dataclass(frozen=True)
class Problem:
    """What the planners work on: kernels and tensors by position, sizes rounded up to the alignment.

    A tensor lives from the kernel that writes it to the last one that reads it. Inputs of the graph live from the
    start, its outputs to the end, and so does an input that nobody reads. While a kernel runs, its inputs and outputs
    are live together.

    Attributes:
        reads: Per kernel, the tensors that it reads.
        writes: Per kernel, the tensors that it writes.
        sizes: Per tensor, its bytes.
        readers: Per tensor, how many kernels read it.
        given: Tensors that are live from the start.
        kept: Tensors that are live to the end.
        alone: Per kernel, bytes that are needed only while it runs (its weights, where they are streamed).
        scratch: Per kernel, what it needs besides if it writes over its input; None if it does not.
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
        """The dying input that the kernel writes its largest output over: the smallest that is large enough."""
        scratch = self.scratch[kernel]
        wanted = max((self.sizes[t] for t in self.writes[kernel]), default=0)
        if scratch is None or scratch >= wanted:
            return None
        return min((t for t in dying if self.sizes[t] >= wanted), key=self.sizes.__getitem__, default=None)


@dataclass(frozen=True)
class Moment:
    """What happens while one kernel runs.

    Attributes:
        kernel: Its position in the graph.
        before: Tensors that are live already, its inputs among them.
        dying: Inputs that nobody reads later.
        over: The dying input that its largest output overwrites.
        n_bytes: All that is live together.
    """

    kernel: int
    before: tuple[int, ...]
    dying: tuple[int, ...]
    over: int | None
    n_bytes: int


def problem_of(graph: OpGraph, deployment: Deployment) -> Problem:
    """Returns the graph as the planners see it."""
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
    """The activation tensors in the order of their first mention."""
    mentioned = (t for k in graph.kernels for t in (*k.inputs, *k.outputs))
    return tuple(dict.fromkeys((*graph.inputs, *mentioned)))


def aligned(n_bytes: int, alignment_bytes: int) -> int:
    """Rounds a size up, so that the next buffer may begin behind it."""
    return -(-n_bytes // alignment_bytes) * alignment_bytes


def _scratch(kernel: Kernel, deployment: Deployment) -> int | None:
    """What a kernel needs to write over its input; None if it cannot.

    A depthwise convolution reads a channel into scratch before it writes that channel, so N channels of input and N of
    output become N + 1 (Lin et al. 2020, "MCUNet", arXiv 2007.10319, section 3.2); with a stride the output fills only
    the beginning of the input's memory.
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
    """The file's order; where a kernel comes before what it reads (fusion moves kernels), it waits.

    Raises:
        EvaluationError: Kernels wait for each other.
    """
    made_by = {t: k for k, write in enumerate(problem.writes) for t in write}
    waits = [{made_by[t] for t in read if t in made_by} for read in problem.reads]
    if all(not wait or max(wait) < k for k, wait in enumerate(waits)):
        return tuple(range(len(waits)))
    followers: list[list[int]] = [[] for _ in waits]
    for kernel, wait in enumerate(waits):
        for before in wait:
            followers[before].append(kernel)
    left = [len(wait) for wait in waits]
    ready = [kernel for kernel, n in enumerate(left) if not n]
    heapify(ready)
    order = []
    while ready:
        order.append(heappop(ready))
        for kernel in followers[order[-1]]:
            left[kernel] -= 1
            if not left[kernel]:
                heappush(ready, kernel)
    if len(order) < len(waits):
        stuck = next(graph.kernels[k].name for k, n in enumerate(left) if n)
        raise EvaluationError(f"kernel {stuck!r} waits for its own output: the graph has a cycle")
    return tuple(order)


def moments(problem: Problem, order: Sequence[int]) -> Iterator[Moment]:
    """Runs the kernels in `order` and yields what is live while each runs."""
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
    """What the caller hands over before any kernel runs."""
    return sum(problem.sizes[t] for t in problem.given)


def peak_bytes(problem: Problem, order: Sequence[int]) -> int:
    """The most bytes that are live at once."""
    return max((m.n_bytes for m in moments(problem, order)), default=given_bytes(problem))
