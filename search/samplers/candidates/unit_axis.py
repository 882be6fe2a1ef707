"""Maps the values of a knob with an order to positions in [0, 1]."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution


def is_ordered(kind: BaseDistribution) -> bool:
    """Returns whether a knob has an order: numbers, or categories that are ascending; at least two values."""
    if isinstance(kind, CategoricalDistribution):
        return len(kind.choices) > 1 and _ascending(kind.choices)
    return not kind.single()


@dataclass(frozen=True)
class UnitAxis:
    """Converts a knob's values to positions and back.

    Attributes:
        kind: A distribution for which `is_ordered` holds.
    """

    kind: BaseDistribution

    @property
    def n_cells(self) -> int | None:
        """Number of values, each a cell of equal width; None if positions are continuous, or widths differ."""
        if isinstance(self.kind, CategoricalDistribution):
            return len(self.kind.choices)
        assert isinstance(self.kind, IntDistribution | FloatDistribution)  # Optuna has no other
        if self.kind.log or self.kind.step is None:
            return None
        return math.floor((self.kind.high - self.kind.low) / self.kind.step + 1e-9) + 1

    def position(self, value: Any) -> float:
        """Returns a value's position, the middle of its cell if there are cells; NaN outside the domain."""
        if isinstance(self.kind, CategoricalDistribution):
            known = [type(choice) is type(value) and choice == value for choice in self.kind.choices]
            return (known.index(True) + 0.5) / len(known) if True in known else math.nan
        assert isinstance(self.kind, IntDistribution | FloatDistribution)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return math.nan
        if not self.kind.low <= value <= self.kind.high:
            return math.nan
        if self.n_cells is not None:
            return (round((value - self.kind.low) / (self.kind.step or 1)) + 0.5) / self.n_cells
        low, high = self._ends
        place = ((math.log(value) if self.kind.log else value) - low) / (high - low)
        return min(place, math.nextafter(1.0, 0.0))  # cells are open above

    def value(self, position: float) -> Any:
        """Returns the value at a position in [0, 1), as in `trial.params`."""
        cell = None if self.n_cells is None else min(int(position * self.n_cells), self.n_cells - 1)
        if isinstance(self.kind, CategoricalDistribution):
            return self.kind.choices[cell or 0]
        assert isinstance(self.kind, IntDistribution | FloatDistribution)
        low, high = self._ends
        number = low + position * (high - low)
        if cell is not None:
            number = round(self.kind.low + cell * (self.kind.step or 1), 12)
        number = math.exp(number) if self.kind.log else number
        inside = min(max(number, self.kind.low), self.kind.high)
        return round(inside) if isinstance(self.kind, IntDistribution) else float(inside)

    @property
    def _ends(self) -> tuple[float, float]:
        assert isinstance(self.kind, IntDistribution | FloatDistribution)
        # half a step more at both ends, so that after rounding they are as frequent as other values
        half = 0.5 if isinstance(self.kind, IntDistribution) else 0.0
        ends = self.kind.low - half, self.kind.high + half
        return (math.log(ends[0]), math.log(ends[1])) if self.kind.log else ends


def _ascending(choices: Sequence[Any]) -> bool:
    numbers = all(isinstance(c, int | float) and not isinstance(c, bool) for c in choices)
    return numbers and all(a < b for a, b in pairwise(choices))
