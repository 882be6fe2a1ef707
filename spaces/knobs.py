"""A knob is one search parameter: a path, a domain, conditions, and optionally a group of layers."""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np

from spaces.candidate import Value, value_text
from spaces.errors import SpaceError


def same(a: Value, b: Value) -> bool:
    """Whether values are equal and of the same type: `True`, `1` and `1.0` are different values of a knob."""
    return type(a) is type(b) and a == b


@dataclass(frozen=True)
class Choices:
    """One of a list of values.

    Attributes:
        values: The values, in config order.
        ordered: Whether the values are ordinal: neighbours in the list are similar, and `encode` returns the
            position.
    """

    values: tuple[Value, ...]
    ordered: bool = False

    def __post_init__(self) -> None:
        if not self.values:
            raise SpaceError("`choices` must hold at least one value, but it is empty")
        repeated = [v for i, v in enumerate(self.values) if any(same(v, w) for w in self.values[:i])]
        if repeated:
            raise SpaceError(f"`choices` must not repeat a value, but {repeated[0]!r} is listed twice")

    @property
    def size(self) -> int | None:
        """Number of values (never None; a `Range` may be infinite)."""
        return len(self.values)

    def __iter__(self) -> Iterator[Value]:
        return iter(self.values)

    def __contains__(self, value: object) -> bool:
        return any(type(value) is type(v) and value == v for v in self.values)

    def sample(self, rng: np.random.Generator) -> Value:
        """Draws one value uniformly."""
        return self.values[int(rng.integers(len(self.values)))]

    def encode(self, value: Value | None, active: bool = True) -> list[float]:
        """One-hot; all zero where the knob is inactive. Ordered choices are their position in [0, 1]."""
        hits = [float(active and same(v, value)) for v in self.values]
        if not self.ordered:
            return hits
        return [hits.index(1.0) / max(1, len(hits) - 1) if active else math.nan]

    def features(self, path: str) -> list[str]:
        """Names of the features that `encode` returns."""
        return [path] if self.ordered else [f"{path}={value_text(v)}" for v in self.values]

    def __str__(self) -> str:
        text = ", ".join(value_text(v) for v in self.values)
        return text if len(self.values) > 1 else f"fixed at {text}"


@dataclass(frozen=True)
class Range:
    """A number between `low` and `high`, both included.

    Attributes:
        low: Smallest value.
        high: Largest value.
        step: Distance between neighbours; None for a continuous range (1 for whole numbers).
        log: Whether values are drawn uniformly on a logarithmic scale; excludes a step other than 1.
        integer: Whether values are whole numbers.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.low, self.high))) or self.low > self.high:
            raise SpaceError(f"`low <= high` must hold, but got low={self.low}, high={self.high}")
        if self.step is not None and not self.step > 0:
            raise SpaceError(f"`step` must be above 0, but got {self.step}")
        if self.log and (self.low <= 0 or self.step not in (None, 1)):
            raise SpaceError(f"`log` needs low > 0 and no step, but got low={self.low}, step={self.step}")

    @property
    def spacing(self) -> float | None:
        """Distance between neighbours, or None if the range is continuous."""
        return self.step if self.step is not None else (1 if self.integer else None)

    @property
    def size(self) -> int | None:
        """Number of values; None if the range is continuous (and not a point)."""
        if self.spacing is None:
            return 1 if self.low == self.high else None
        # 1e-9: (0.3 - 0.1) / 0.1 is 1.9999999999999998
        return math.floor((self.high - self.low) / self.spacing + 1e-9) + 1

    def __iter__(self) -> Iterator[Value]:
        if self.size is None:
            raise SpaceError(f"a continuous range cannot be enumerated: {self}; give it a `step`")
        return (self._at(i) for i in range(self.size))

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        if isinstance(value, int) is not self.integer or not math.isfinite(value):
            return False
        if self.spacing is None:
            return self.low <= value <= self.high
        steps = (value - self.low) / self.spacing
        return abs(steps - round(steps)) < 1e-6 and 0 <= round(steps) < (self.size or 0)

    def _at(self, index: int) -> Value:
        if self.spacing is None:
            return float(self.low)
        number = self.low + index * self.spacing
        # 12 digits: the same text for a value however it was computed
        return round(number) if self.integer else round(float(number), 12)

    def sample(self, rng: np.random.Generator) -> Value:
        """Draws one value, uniformly or log-uniformly."""
        if self.log:
            number = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
            number = min(max(number, self.low), self.high)
            return round(number) if self.integer else number
        if self.size is not None:
            return self._at(int(rng.integers(self.size)))
        return float(rng.uniform(self.low, self.high))

    def encode(self, value: Value | None, active: bool = True) -> list[float]:
        """Position in [0, 1] on the range's linear or logarithmic scale; NaN where the knob is inactive."""
        if not active or not isinstance(value, int | float):
            return [math.nan]
        low, high, number = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return [(number - low) / (high - low) if high > low else 0.0]

    def features(self, path: str) -> list[str]:
        """Names of the features that `encode` returns."""
        return [path]

    def __str__(self) -> str:
        kind = "int" if self.integer else "float"
        extra = f", step {self.step}" if self.step not in (None, 1) else ""
        return f"{kind} {self.low:g} to {self.high:g}{extra}{', log' if self.log else ''}"


Domain = Choices | Range


def without(domain: Domain, values: Collection[Value]) -> Domain:
    """Returns a domain without some values; as it is if none would be left, or if it is continuous."""
    if domain.size is None:
        return domain
    left = tuple(v for v in domain if not any(same(v, other) for other in values))
    if not left or len(left) == domain.size:
        return domain
    return replace(domain, values=left) if isinstance(domain, Choices) else Choices(left, ordered=True)


@dataclass(frozen=True)
class Condition:
    """A knob is active only where another knob has one of these values."""

    path: str
    values: tuple[Value, ...]

    def __str__(self) -> str:
        return f"{self.path} in {{{', '.join(value_text(v) for v in self.values)}}}"


@dataclass(frozen=True)
class Knob:
    """One search parameter.

    Attributes:
        path: `stage.name`, or `stage.name[group]` for one group's value of a per-layer knob.
        domain: The values that it can take.
        when: Conditions, all of which must hold for the knob to be active.
        layers: The layers of the group; None for a knob with one value for the whole model.
    """

    path: str
    domain: Domain
    when: tuple[Condition, ...] = ()
    layers: tuple[str, ...] | None = None

    @property
    def base(self) -> str:
        """The path without its group: `quantize.weight_bits`."""
        return self.path.split("[", 1)[0]

    @property
    def group(self) -> str | None:
        """The group's name, or None."""
        return self.path.split("[", 1)[1][:-1] if "[" in self.path else None
