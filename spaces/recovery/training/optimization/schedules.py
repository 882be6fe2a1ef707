"""Learning-rate schedules, as a factor on the peak. They are stateless, so that any step can be resumed."""

from collections.abc import Callable
from math import cos, pi

# The constants of one_cycle are the defaults of torch's OneCycleLR.
WARM_UP = 0.3  # share of the training in which the learning rate rises
FIRST = 1 / 25  # initial factor
LAST = 1e-4 / 25  # final factor


def one_cycle(progress: float) -> float:
    """Rises, then falls to almost 0, both along half a cosine (Smith & Topin 2017, arXiv 1708.07120)."""
    if progress < WARM_UP:
        return _cosine(FIRST, 1.0, progress / WARM_UP)
    return _cosine(1.0, LAST, (progress - WARM_UP) / (1 - WARM_UP))


def cosine(progress: float) -> float:
    """Falls to 0 along half a cosine (Loshchilov & Hutter 2016, arXiv 1608.03983, without restarts)."""
    return _cosine(1.0, 0.0, progress)


def linear(progress: float) -> float:
    """Falls linearly to 0."""
    return 1.0 - progress


def constant(progress: float) -> float:
    """Stays at the peak."""
    del progress
    return 1.0


SCHEDULES: dict[str, Callable[[float], float]] = {
    "one_cycle": one_cycle,
    "cosine": cosine,
    "linear": linear,
    "constant": constant,
}


def factor_at(schedule: str, step: int, n_steps: int) -> float:
    """Returns the factor on the peak learning rate, in (0, 1], at the middle of a step, counted from 0."""
    return SCHEDULES[schedule]((step + 0.5) / n_steps)


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + cos(pi * progress)) / 2
