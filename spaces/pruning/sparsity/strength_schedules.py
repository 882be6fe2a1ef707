"""How strongly a sparsity-aware training presses, as a factor on the strength. Nothing is kept, so any step can be resumed."""

from collections.abc import Callable

LAST = 0.1  # factor that the linear decay ends at (Liu et al. 2017, arXiv 1708.06519, as implemented for YOLO detectors)


def constant(progress: float) -> float:
    """The whole strength all along."""
    del progress
    return 1.0


def linear_decay(progress: float) -> float:
    """Down to a tenth along a line, so that what stays recovers at the end."""
    return 1.0 - (1.0 - LAST) * progress


STRENGTH_SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": constant,
    "linear_decay": linear_decay,
}


def strength_at(schedule: str, strength: float, step: int, n_steps: int) -> float:
    """Returns the strength at a step, from 0 on, of `n_steps`: the schedule's factor at `step / n_steps` times it."""
    return strength * STRENGTH_SCHEDULES[schedule](step / n_steps)
