"""Memory over time, by the names of tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluators.cost.memory.liveness import Moment, Problem


@dataclass(frozen=True)
class Step:
    """What is in memory while one kernel runs.

    Attributes:
        kernel: Its name.
        live: Bytes by tensor, aligned; of a tensor that is being overwritten only what the new one leaves over. A
            kernel's own scratch and streamed weights are named after it.
        total_bytes: Sum of `live`.
    """

    kernel: str
    live: Mapping[str, int]
    total_bytes: int


def scratch_of(kernel: str) -> str:
    """Name of a kernel's scratch among the tensors."""
    return f"{kernel} (scratch)"


def weights_of(kernel: str) -> str:
    """Name of a kernel's streamed weights among the tensors."""
    return f"{kernel} (weights)"


def step_of(moment: Moment, problem: Problem, tensors: Sequence[str], kernel: str) -> Step:
    """Returns one moment by names.

    Args:
        moment: What happens.
        problem: What was planned.
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
