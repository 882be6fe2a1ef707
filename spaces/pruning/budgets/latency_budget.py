"""Meets a latency budget with few calls of the latency model: each needs a cut and exported network."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from spaces.errors import StageError
from spaces.pruning.budgets.arithmetic import NKept
from spaces.pruning.budgets.budget import Limits, Ranking, nearest_below
from spaces.pruning.budgets.target import TOLERANCE, Budget

MOST_CALLS = 6  # of the latency model, not counting the dense network's
CLOSE = 1e-4  # smallest difference of latency shares to interpolate over

Point = tuple[float, float]
"""Share of the dense network's MACs, and share of its latency."""


def within_latency(
    keep: float,
    latency_share: Callable[[NKept], float],
    macs: Budget,
    ranking: Ranking,
    most: NKept,
    limits: Limits,
) -> NKept:
    """Returns how many channels each group keeps, `(n_groups,)`, to meet a budget of latency.

    The candidates are cuts to a budget of MACs. The MAC budget that yields the required latency is found by
    linear interpolation between evaluated cuts, or by bisection where that makes no progress. The remaining
    latency is within the tolerance below `keep`, or, if no such cut was found, within the tolerance above it,
    unless `most` is already below `keep`.

    Args:
        keep: The share of the latency that may remain.
        latency_share: Maps the kept channels of a cut, `(n_groups,)`, to its share of the dense network's
            latency. Called at most `MOST_CALLS` times.
        macs: The budget of MACs; its `keep` is ignored, its tolerance and strictness apply to the latency.
        ranking: The channels by importance.
        most: `(n_groups,)`: upper bounds on the kept channels.
        limits: How few channels a layer may keep.

    Raises:
        StageError: No cut that was tried meets the budget.
    """
    search = _Search(keep, latency_share, macs)
    if search.share(most) <= keep:
        return most
    least = np.array([limits.allowed(group)[0] for group in ranking.groups], np.int64)
    lowest = float(macs.shares(least))
    while search.n_calls < MOST_CALLS:
        targets = (search.interpolated(lowest), search.bisected(lowest))
        cuts = (nearest_below(replace(macs, keep=t), ranking, most, limits) for t in targets)
        n_kept = next((c for c in cuts if not search.knows(c)), None)
        if n_kept is None or keep - macs.tolerance <= search.share(n_kept) <= keep:
            break
    return search.nearest(limits)


class _Search:
    """The cuts evaluated so far, and the MAC budget to try next."""

    def __init__(self, keep: float, latency_share: Callable[[NKept], float], macs: Budget) -> None:
        self._keep, self._latency_share, self._macs = keep, latency_share, macs
        self._cuts: list[tuple[Point, NKept]] = []
        self.n_calls = 0

    def knows(self, n_kept: NKept) -> bool:
        """Whether this cut was evaluated before."""
        return any(np.array_equal(n_kept, known) for _, known in self._cuts)

    def share(self, n_kept: NKept) -> float:
        """Returns a cut's share of the dense network's latency; the dense network itself is not evaluated."""
        macs = float(self._macs.shares(n_kept))
        if macs == 1.0:
            share = 1.0
        else:
            share, self.n_calls = self._latency_share(n_kept), self.n_calls + 1
        self._cuts.append(((macs, share), n_kept))
        return share

    def interpolated(self, lowest: float) -> float:
        """Returns the share of MACs to try next, by linear interpolation to the middle of the tolerance.

        Args:
            lowest: Least share of MACs that a cut can leave.
        """
        below, above = self._sides()
        if below:
            sides = [point[1] > self._keep for point, _ in self._cuts[-2:]]
            if len(self._cuts) > 3 and sides[0] == sides[1]:
                return self.bisected(lowest)
            return self._on_line(below[-1], above[0])
        first = above[1] if len(above) > 1 else (0.0, 0.0)
        return max(lowest, min(self._on_line(first, above[0]), above[0][0]))

    def bisected(self, lowest: float) -> float:
        """Returns the share of MACs midway between the evaluated cuts next to the budget on either side."""
        below, above = self._sides()
        return (above[0][0] + (below[-1][0] if below else lowest)) / 2

    def _sides(self) -> tuple[list[Point], list[Point]]:
        """Returns the points within the latency budget and those above it, each by ascending MACs."""
        points = sorted(point for point, _ in self._cuts)
        return [p for p in points if p[1] <= self._keep], [p for p in points if p[1] > self._keep]

    def _on_line(self, first: Point, second: Point) -> float:
        rise = second[1] - first[1]
        aim = self._keep - min(self._macs.tolerance, TOLERANCE) / 2
        if abs(rise) < CLOSE:
            return (first[0] + second[0]) / 2
        return first[0] + (aim - first[1]) * (second[0] - first[0]) / rise

    def nearest(self, limits: Limits) -> NKept:
        """Returns the evaluated cut nearest to the budget, or nearest below it if that is beyond the tolerance.

        Raises:
            StageError: A strict budget is missed.
        """
        (_, share), n_kept = min(self._cuts, key=lambda cut: abs(cut[0][1] - self._keep))
        if abs(share - self._keep) <= self._macs.tolerance:
            return n_kept
        if not self._macs.strict:
            below = [cut for cut in self._cuts if cut[0][1] <= self._keep]
            return max(below, key=lambda cut: cut[0][1])[1] if below else n_kept
        shares = ", ".join(f"{point[1]:.3f}" for point, _ in sorted(self._cuts, key=lambda cut: cut[0]))
        raise StageError(
            f"prune.keep={self._keep:g} cannot be met within {self._macs.tolerance:g}: the cuts that were tried leave {shares} of the "
            f"dense network's latency_ms ({limits})"
        )
