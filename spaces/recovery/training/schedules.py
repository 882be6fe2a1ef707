"""How the learning rate goes over a training, as a factor on its peak. Nothing is kept, so that any step can be resumed."""

from collections.abc import Callable
from math import cos, pi

WARM_UP = 0.3  # share of one cycle that goes up; with the two below as in torch's OneCycleLR
FIRST = 1 / 25  # factor that one cycle starts at
LAST = 1e-4 / 25  # factor that it ends at


def one_cycle(progress: float) -> float:
    """Up, then down to almost nothing, along cosines (Smith & Topin 2017, arXiv 1708.07120)."""
    if progress < WARM_UP:
        return _cosine(FIRST, 1.0, progress / WARM_UP)
    return _cosine(1.0, LAST, (progress - WARM_UP) / (1 - WARM_UP))


def cosine(progress: float) -> float:
    """Down to nothing along half a cosine (Loshchilov & Hutter 2016, arXiv 1608.03983, without restarts)."""
    return _cosine(1.0, 0.0, progress)


def linear(progress: float) -> float:
    """Down to nothing along a line."""
    return 1.0 - progress


def constant(progress: float) -> float:
    """The peak all along."""
    del progress
    return 1.0


SCHEDULES: dict[str, Callable[[float], float]] = {
    "one_cycle": one_cycle,
    "cosine": cosine,
    "linear": linear,
    "constant": constant,
}


def factor_at(schedule: str, step: int, n_steps: int) -> float:
    """Returns the factor on the peak learning rate, in (0, 1], for a step from 0 on: that of its middle."""
    return SCHEDULES[schedule]((step + 0.5) / n_steps)


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + cos(pi * progress)) / 2
