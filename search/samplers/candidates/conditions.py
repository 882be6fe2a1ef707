"""Conditions between knobs, learned from valid candidates."""

import numpy as np
from numpy.typing import NDArray

from search.samplers.candidates.codes import Array

_MAX_VALUES = 32  # a knob with more values does not count as a switch


class Conditions:
    """Conditions that are not declared to a sampler, inferred from valid candidates.

    A knob is conditional if some candidates lack it. A knob is a switch if, under one of its values, a conditional knob was
    always active, or never, though under another value it was otherwise. With few candidates a knob may be
    taken for a switch by chance: it is then mutated more cautiously than necessary.

    Args:
        rows: `(n, n_knobs)`, valid candidates as `Codes.encode` returns them.

    Attributes:
        conditional: `(n_knobs,)`, whether each knob is conditional.
        switch: `(n_knobs,)`, whether each knob is a switch.
    """

    def __init__(self, rows: Array) -> None:
        active = ~np.isnan(rows)
        n_knobs = rows.shape[1]
        self.conditional: NDArray[np.bool_] = np.asarray(active.any(axis=0) & ~active.all(axis=0))
        self._columns = np.flatnonzero(self.conditional)
        self._observed: dict[int, tuple[Array, NDArray[np.bool_]]] = {}
        for knob in range(n_knobs) if len(self._columns) else ():
            values = np.unique(rows[active[:, knob], knob])
            if 1 < len(values) <= _MAX_VALUES:
                observed = self._observed_states(rows, values, knob)
                observed |= ~observed.any(
                    axis=0
                )  # a state that no value was observed with does not depend on the knob
                if not observed.all():
                    self._observed[knob] = values, observed
        self.switch: NDArray[np.bool_] = np.zeros(n_knobs, dtype=np.bool_)
        self.switch[list(self._observed)] = True

    def _observed_states(self, rows: Array, values: Array, knob: int) -> NDArray[np.bool_]:
        """Returns `(n_values, n_conditional, 2)`: whether the value occurs with the knob inactive, and active."""
        active = ~np.isnan(rows[:, self._columns])
        observed = np.zeros((len(values), len(self._columns), 2), dtype=np.bool_)
        for at, value in enumerate(values):
            under = active[rows[:, knob] == value]
            observed[at, :, 0], observed[at, :, 1] = (~under).any(axis=0), under.any(axis=0)
        return observed

    def fits(self, rows: Array, knob: int, values: Array) -> NDArray[np.bool_]:
        """Returns `(n,)`, whether the knob may take a value while the row's other knobs stay as they are.

        Args:
            rows: `(n, n_knobs)`.
            knob: Its column.
            values: `(n,)`, a value for each row.
        """
        if knob not in self._observed:
            return np.ones(len(rows), dtype=np.bool_)
        known, observed = self._observed[knob]
        at = np.minimum(np.searchsorted(known, values), len(known) - 1)
        active = ~np.isnan(rows[:, self._columns])
        as_observed = np.where(active, observed[at, :, 1], observed[at, :, 0]).all(axis=1)
        return np.asarray((known[at] == values) & as_observed)

    def same_active(self, rows: Array, others: Array) -> NDArray[np.bool_]:
        """Returns `(n,)`, whether each row has the same active knobs as the one in `others`."""
        return np.asarray((np.isnan(rows) == np.isnan(others)).all(axis=1))
