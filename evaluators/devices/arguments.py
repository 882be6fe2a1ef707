"""Validation of numeric arguments; every message names the argument."""

import math
from numbers import Integral, Real

from spaces.errors import EvaluationError, ParedownError

ErrorType = type[ParedownError]


def number(
    value: object, name: str, least: float = 0.0, most: float = math.inf, error: ErrorType = EvaluationError
) -> float:
    """Returns `value` as a float in [least, most].

    Raises:
        ParedownError: Of the class `error`: not a finite number, or outside the range.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise error(f"{name}: expected a finite number, got {value!r}")
    if not least <= float(value) <= most:
        limit = f"at least {least:g}" if math.isinf(most) else f"in [{least:g}, {most:g}]"
        raise error(f"{name}: must be {limit}, got {value!r}")
    return float(value)


def positive(value: object, name: str, error: ErrorType = EvaluationError) -> float:
    """Returns `value` as a float above 0.

    Raises:
        ParedownError: Of the class `error`: not a finite number, or not above 0.
    """
    if number(value, name, -math.inf, error=error) <= 0:
        raise error(f"{name}: must be above 0, got {value!r}")
    return number(value, name, error=error)


def share(value: object, name: str, error: ErrorType = EvaluationError) -> float:
    """Returns `value` as a float in [0, 1].

    Raises:
        ParedownError: Of the class `error`: not a number in [0, 1].
    """
    return number(value, name, 0.0, 1.0, error)


def whole(value: object, name: str, least: int = 0, error: ErrorType = EvaluationError) -> int:
    """Returns `value` as an int that is at least `least`.

    Raises:
        ParedownError: Of the class `error`: not a whole number, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise error(f"{name}: expected a whole number, got {value!r}")
    if value < least:
        raise error(f"{name}: must be at least {least}, got {value!r}")
    return int(value)
