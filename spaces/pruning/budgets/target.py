"""A budget: the share of the dense network's cost that a cut network may have."""

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
    """The share of a network's cost that may remain after a cut.

    Attributes:
        keep: Share of the dense network's cost.
        dense: The dense network's cost.
        costs: Maps kept channels to costs, in the unit of `dense`.
        of: Name of the cost, e.g. `macs`.
        tolerance: How far from `keep` a cut may be.
        strict: Whether it is an error if no cut is within the tolerance; otherwise the nearest cut below is taken.
    """

    keep: float
    dense: int
    costs: Costs
    of: str
    tolerance: float = TOLERANCE
    strict: bool = True

    def shares(self, n_kept: NKept) -> NDArray[np.float64]:
        """Returns the share of the dense network's cost that remains, `(...,)`."""
        shares: NDArray[np.float64] = self.costs(n_kept) / self.dense
        return shares
