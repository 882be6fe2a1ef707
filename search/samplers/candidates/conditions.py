"""Which knobs switch others on and off, learned from candidates that are known to be valid."""

import numpy as np
from numpy.typing import NDArray

from search.samplers.candidates.codes import Array

_MAX_VALUES = 32  # a knob with more values is not taken for a switch


class Conditions:
    """What valid candidates tell about conditions that are not declared to a sampler.

    A knob is conditional if some candidates lack it. A knob is a switch if, under one of its values, a conditional knob was
    always there, or never, though under another it was otherwise. With few candidates a knob may look like a switch by
    chance: it is then varied with more care than it needs.

    Args:
        rows: `(n, n_knobs)`, valid candidates as `Codes.encode` gives them.

    Attributes:
        conditional: Which knobs are, `(n_knobs,)`.
        switch: Which knobs are, `(n_knobs,)`.
    """

    def __init__(self, rows: Array) -> None:
        active = ~np.isnan(rows)
        n_knobs = rows.shape[1]
        self.conditional: NDArray[np.bool_] = np.asarray(active.any(axis=0) & ~active.all(axis=0))
        self._columns = np.flatnonzero(self.conditional)
        self._seen: dict[int, tuple[Array, NDArray[np.bool_]]] = {}
        for knob in range(n_knobs) if len(self._columns) else ():
            values = np.unique(rows[active[:, knob], knob])
            if 1 < len(values) <= _MAX_VALUES:
                seen = self._with(rows, values, knob)
                seen |= ~seen.any(axis=0)  # what is so under every value does not depend on it
                if not seen.all():
                    self._seen[knob] = values, seen
        self.switch: NDArray[np.bool_] = np.zeros(n_knobs, dtype=np.bool_)
        self.switch[list(self._seen)] = True

    def _with(self, rows: Array, values: Array, knob: int) -> NDArray[np.bool_]:
        """Returns `(n_values, n_conditional, 2)`: whether the value was seen with the other knob inactive, active."""
        active = ~np.isnan(rows[:, self._columns])
        seen = np.zeros((len(values), len(self._columns), 2), dtype=np.bool_)
        for at, value in enumerate(values):
            under = active[rows[:, knob] == value]
            seen[at, :, 0], seen[at, :, 1] = (~under).any(axis=0), under.any(axis=0)
        return seen

    def fits(self, rows: Array, knob: int, values: Array) -> NDArray[np.bool_]:
        """Returns, for each row, whether the knob may take a value with the row's other knobs as they are.

        Args:
            rows: `(n, n_knobs)`.
            knob: Its column.
            values: `(n,)`.
        """
        if knob not in self._seen:
            return np.ones(len(rows), dtype=np.bool_)
        known, seen = self._seen[knob]
        at = np.minimum(np.searchsorted(known, values), len(known) - 1)
        active = ~np.isnan(rows[:, self._columns])
        as_seen = np.where(active, seen[at, :, 1], seen[at, :, 0]).all(axis=1)
        return np.asarray((known[at] == values) & as_seen)

    def alike(self, rows: Array, others: Array) -> NDArray[np.bool_]:
        """Returns, row by row, whether both have the same knobs active."""
        return np.asarray((np.isnan(rows) == np.isnan(others)).all(axis=1))
