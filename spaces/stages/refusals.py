"""Which values a check refuses."""

from collections.abc import Callable, Iterable
from typing import Any

from spaces.candidate import Value
from spaces.errors import StageError


def refusals(check: Callable[[Any], object], values: Iterable[Value]) -> dict[Value, str]:
    """Returns the values for which a check raises StageError, each with the message."""
    found: dict[Value, str] = {}
    for value in values:
        try:
            check(value)
        except StageError as error:
            found[value] = str(error)
    return found
