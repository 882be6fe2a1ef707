"""Schedules of the regularization strength, as a factor on it; stateless, so any step can be resumed."""

from collections.abc import Callable

# Last factor of the linear decay (Liu et al. 2017, arXiv 1708.06519, as implemented for YOLO detectors).
LAST = 0.1


def constant(progress: float) -> float:
    """Returns 1: the full strength throughout."""
    del progress
    return 1.0


def linear_decay(progress: float) -> float:
    """Returns a factor that falls linearly to a tenth, so that the remaining channels recover."""
    return 1.0 - (1.0 - LAST) * progress


STRENGTH_SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": constant,
    "linear_decay": linear_decay,
}


def strength_at(schedule: str, strength: float, step: int, n_steps: int) -> float:
    """Returns `strength` times the schedule's factor at a step, counted from 0, of `n_steps`."""
    return strength * STRENGTH_SCHEDULES[schedule](step / n_steps)
