"""Checks of the options of formats, and of the weights that they get."""

from collections.abc import Mapping
from dataclasses import Field, fields
from types import MappingProxyType
from typing import Any

import numpy as np

from spaces.errors import ConfigError, StageError
from spaces.quantization.formats.packing.groups import Weight

FLOATS = ("float16", "float32")
GROUP: Mapping[str, Any] = MappingProxyType({"group": True})
"""Metadata of a format's field that says what shares a scale: see `Group`."""


def check_finite(weight: Weight, name: str) -> None:
    """Raises StageError if a weight is not finite."""
    n_bad = int(np.count_nonzero(~np.isfinite(weight)))
    if n_bad:
        raise StageError(f"weight_format={name}: {n_bad} of {weight.size} weights are not finite")


def one_of(allowed: tuple[Any, ...]) -> Mapping[str, Any]:
    """Returns the metadata of a format's field that is one of some values."""
    return {"allowed": allowed}


def between(low: float, high: float = np.inf, *, below: bool = False) -> Mapping[str, Any]:
    """Returns the metadata of a format's field that is a number, whole if its default is.

    Args:
        low: Smallest number.
        high: Largest number.
        below: Whether numbers have to be below `high`.
    """
    return {"range": (low, high, below)}


def check_options(form: Any, name: str) -> None:
    """Raises ConfigError if a field of a format with such metadata has a value that it must not have; `name` is the format's."""
    for option in fields(form):
        value, problem = getattr(form, option.name), None
        if "allowed" in option.metadata and value not in option.metadata["allowed"]:
            problem = f"one of {option.metadata['allowed']}"
        elif "range" in option.metadata:
            problem = _range_problem(value, option)
        elif "group" in option.metadata and value not in ("tensor", "channel") and not _whole(value, 1):
            problem = "tensor, channel, or a number of inputs of at least 1"
        if problem is not None:
            raise ConfigError(f"{name}.{option.name} must be {problem}, but is {value!r}")


def _range_problem(value: Any, option: "Field[Any]") -> str | None:
    low, high, below = option.metadata["range"]
    if value is None and option.default is None:
        return None
    whole = not isinstance(option.default, float)
    is_number = not isinstance(value, bool) and isinstance(value, int if whole else int | float)
    if is_number and (low <= value < high or (value == high and not below)):
        return None
    if below:
        return f"in [{low}, {high})"
    text = f"at least {low}" if high == np.inf else f"{low} to {high}"
    return f"{text}, or null" if option.default is None else text


def _whole(value: object, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low
