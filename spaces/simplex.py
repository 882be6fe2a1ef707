"""Weights that sum to 1, as the values of a knob."""

from collections.abc import Iterator
from math import comb

from spaces.errors import SpaceError

MOST_POINTS = 10_000


def simplex(n: int, step: float) -> tuple[tuple[float, ...], ...]:
    """Returns all vectors of `n` multiples of `step` that are at least 0 and sum to 1, in lexicographic order.

    Raises:
        SpaceError: `n` is less than 2, `step` does not divide 1, or there are too many.
    """
    if type(n) is not int or n < 2:
        raise SpaceError(f"`simplex` must be the number of weights, at least 2, not {n!r}")
    n_steps = round(1 / step) if isinstance(step, int | float) and 0 < step <= 1 else 0
    if not n_steps or abs(n_steps * step - 1) > 1e-9:
        raise SpaceError(f"`step` of a simplex must divide 1, e.g. 0.1, not {step!r}")
    n_points = comb(n_steps + n - 1, n - 1)
    if n_points > MOST_POINTS:
        raise SpaceError(
            f"a simplex of {n} weights in steps of {step} has {n_points:,} points, more than {MOST_POINTS:,}"
        )
    return tuple(tuple(part / n_steps for part in parts) for parts in _compositions(n_steps, n))


def _compositions(total: int, n: int) -> Iterator[tuple[int, ...]]:
    """Yields all `n` numbers from 0 on that sum to `total`."""
    if n == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in _compositions(total - first, n - 1):
            yield (first, *rest)
