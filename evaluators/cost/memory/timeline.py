"""The timeline of a memory plan: live tensors by name while each kernel runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluators.cost.memory.liveness import Moment, Problem


@dataclass(frozen=True)
class Step:
    """Memory contents while one kernel runs.

    Attributes:
        kernel: Name of the kernel.
        live: Aligned bytes by tensor; of a tensor that is overwritten in place only the part that the output
            leaves. A kernel's scratch and streamed weights are named after it.
        total_bytes: Sum of `live`.
    """

    kernel: str
    live: Mapping[str, int]
    total_bytes: int


def scratch_of(kernel: str) -> str:
    """Returns the name of a kernel's scratch buffer."""
    return f"{kernel} (scratch)"


def weights_of(kernel: str) -> str:
    """Returns the name of the buffer of a kernel's streamed weights."""
    return f"{kernel} (weights)"


def step_of(moment: Moment, problem: Problem, tensors: Sequence[str], kernel: str) -> Step:
    """Converts the liveness at one step from positions to names.

    Args:
        moment: Liveness while the kernel runs.
        problem: The kernels and tensors by position.
        tensors: Names of the tensors by position.
        kernel: Name of the kernel.
    """
    sizes, written = problem.sizes, problem.writes[moment.kernel]
    live = {tensors[t]: sizes[t] for t in (*moment.before, *written)}
    if moment.over is not None:
        live[tensors[moment.over]] -= max(sizes[t] for t in written)
        live[scratch_of(kernel)] = problem.scratch[moment.kernel] or 0
    live[weights_of(kernel)] = problem.alone[moment.kernel]
    return Step(kernel, {name: n for name, n in live.items() if n}, moment.n_bytes)
