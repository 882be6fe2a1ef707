"""A stage's declaration of one of its knobs: the default and the valid values."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

from spaces.candidate import Value


@dataclass(frozen=True)
class KnobSpec:
    """One knob that a stage understands.

    Attributes:
        name: Name within the stage, e.g. `weight_bits`.
        default: Value that is used where the space does not mention the knob.
        description: One line for people.
        allowed: Every valid value; None if `low` and `high`, or the stage's `check`, decide.
        low: Smallest valid number; None for no bound.
        high: Largest valid number; None for no bound.
        words: Valid values besides numbers, e.g. `auto`.
        per_layer: Whether the knob can have one value per layer.
        list_of_globs: Whether a value is a list of glob patterns over layer names.
        shares: Whether a value is a list of numbers from 0 on that sum to 1, or an empty one.
    """

    name: str
    default: Value
    description: str
    allowed: tuple[Value, ...] | None = None
    low: float | None = None
    high: float | None = None
    words: tuple[str, ...] = ()
    per_layer: bool = False
    list_of_globs: bool = False
    shares: bool = False

    def problem(self, value: Value) -> str | None:
        """Returns why `value` is invalid, as the end of a sentence; None if it is valid."""
        if self.allowed is not None:
            known = any(value == a and type(value) is type(a) for a in self.allowed)
            return None if known else f"must be one of {list(self.allowed)}, not {value!r}"
        if self.list_of_globs:
            good = isinstance(value, tuple) and all(isinstance(v, str) for v in value)
            return None if good else f"must be a list of layer patterns, not {value!r}"
        if self.shares:
            return (
                None
                if _are_shares(value)
                else f"must be a list of numbers from 0 on that sum to 1, not {value!r}"
            )
        if value in self.words:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"must be {' or '.join((*self.words, 'a number'))}, not {value!r}"
        if isinstance(self.default, int) and not isinstance(value, int):
            return f"must be a whole number, not {value!r}"
        if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
            return f"must lie between {self.low} and {self.high}, not {value!r}"
        return None


def _are_shares(value: Value) -> bool:
    if not isinstance(value, tuple):
        return False
    numbers = [v for v in value if isinstance(v, int | float) and not isinstance(v, bool) and v >= 0]
    return len(numbers) == len(value) and (not value or abs(sum(numbers) - 1) < 1e-6)


class HasKnobs(Protocol):
    """An object that declares knobs under a name, such as a stage.

    Attributes:
        name: First part of the knobs' paths.
        knobs: The declared knobs.
    """

    name: ClassVar[str]
    knobs: tuple[KnobSpec, ...]
