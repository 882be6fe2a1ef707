"""A budget: what a cut network may cost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from spaces.pruning.budgets.arithmetic import NKept

TOLERANCE = 0.02  # how far from a budget a cut may be, as a share of the dense network's cost

Costs: TypeAlias = Callable[[NKept], NDArray[np.int64]]
"""Maps `(..., n_groups)` kept channels to costs `(...,)`; more channels never cost less."""


@dataclass(frozen=True)
class Budget:
    """What may be left of a network's cost.

    Attributes:
        keep: Share of the dense network's cost.
        dense: The dense network's cost.
        costs: What cuts cost, in the same unit.
        of: What the cost is, e.g. `macs`.
        tolerance: How far from `keep` a cut may be.
        strict: Whether no cut will do if none is that near; otherwise the nearest one does.
    """

    keep: float
    dense: int
    costs: Costs
    of: str
    tolerance: float = TOLERANCE
    strict: bool = True

    def shares(self, n_kept: NKept) -> NDArray[np.float64]:
        """Returns which share of the dense network's cost is left, `(...,)`."""
        found: NDArray[np.float64] = self.costs(n_kept) / self.dense
        return found
