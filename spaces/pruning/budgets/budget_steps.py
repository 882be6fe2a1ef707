"""Local search over cuts, to meet a budget more closely than the ranking alone does."""

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaces.pruning.budgets.arithmetic import NKept

if TYPE_CHECKING:
    from spaces.pruning.budgets.target import Budget

MOST_EXCHANGES = 50  # iterations of a local search


class Steps:
    """Local search over cuts. A step changes one group to the next allowed number of channels.

    Args:
        budget: The share of the cost that may remain.
        allowed: For each group, how many channels it may keep, ascending.
    """

    def __init__(self, budget: "Budget", allowed: Sequence[NDArray[np.int64]]) -> None:
        self._budget, self._allowed = budget, allowed

    @property
    def n_combinations(self) -> int:
        """Number of possible cuts."""
        return prod(len(numbers) for numbers in self._allowed)

    def filled(self, n_kept: NKept) -> NKept:
        """Restores channels while the budget allows it, always by the most expensive step that fits."""
        while True:
            better = self._best(self._ups(n_kept))
            if better is None:
                return n_kept
            n_kept = better

    def exchanged(self, n_kept: NKept) -> NKept:
        """Steps one group up, and another down if needed, while that raises the cost within the budget."""
        for _ in range(MOST_EXCHANGES):
            downs = [n_kept, *self._moved(n_kept, -1)]
            better = self._best(np.concatenate([self._ups(d) for d in downs]))
            if better is None or self._budget.costs(better) <= self._budget.costs(n_kept):
                return n_kept
            n_kept = better
        return n_kept

    def nearer(self, n_kept: NKept) -> NKept:
        """Steps up to two groups up or down, as long as that brings the cost nearer to the budget."""
        for _ in range(MOST_EXCHANGES):
            starts = [n_kept, *self._moved(n_kept, -1), *self._moved(n_kept, 1)]
            options = np.stack(
                [m for start in starts for by in (-1, 1) for m in (start, *self._moved(start, by))]
            )
            gaps = np.abs(self._budget.shares(options) - self._budget.keep)
            if gaps.min() >= abs(self._budget.shares(n_kept) - self._budget.keep):
                return n_kept
            n_kept = options[gaps.argmin()]
        return n_kept

    def nearest_of_all(self) -> tuple[NKept, NKept]:
        """Evaluates every cut; returns the nearest ones below (or at) and above the budget."""
        every = np.stack(np.meshgrid(*self._allowed, indexing="ij"), axis=-1).reshape(-1, len(self._allowed))
        gaps = self._budget.shares(every) - self._budget.keep
        below = np.where(gaps <= 0, gaps, -np.inf).argmax()
        above = np.where(gaps > 0, gaps, np.inf).argmin()
        return every[below], every[above]

    def _ups(self, n_kept: NKept) -> NKept:
        moved = self._moved(n_kept, 1)
        return np.array(moved, np.int64).reshape(-1, len(n_kept))

    def _moved(self, n_kept: NKept, by: int) -> list[NKept]:
        neighbours = []
        for group, numbers in enumerate(self._allowed):
            at = int(np.searchsorted(numbers, n_kept[group])) + by
            if 0 <= at < len(numbers):
                changed = n_kept.copy()
                changed[group] = numbers[at]
                neighbours.append(changed)
        return neighbours

    def _best(self, options: NKept) -> NKept | None:
        """Returns the most expensive option within the budget; None if there is none."""
        shares = self._budget.shares(options)
        feasible = np.flatnonzero(shares <= self._budget.keep)
        if not len(feasible):
            return None
        best: NKept = options[feasible[shares[feasible].argmax()]]
        return best
