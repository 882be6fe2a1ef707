"""How many channels each group keeps: by a ratio of its own, or least important channels first until a budget is met."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor, gcd

import numpy as np
from numpy.typing import NDArray

from spaces.errors import StageError
from spaces.pruning.budgets.arithmetic import NKept
from spaces.pruning.budgets.budget_steps import Steps
from spaces.pruning.budgets.target import Budget
from spaces.pruning.groups.group import Group

MOST_COMBINATIONS = 50_000  # that are all looked at where nothing cheaper meets a coarse budget


@dataclass(frozen=True)
class Limits:
    """How small a layer may get.

    Attributes:
        min_channels: Least output channels of a layer that is cut.
        round_to: A layer that is cut keeps a multiple of this many output channels.
        protected: Names of the groups that stay whole.
    """

    min_channels: int = 1
    round_to: int = 1
    protected: frozenset[str] = frozenset()

    def allowed(self, group: Group) -> NDArray[np.int64]:
        """Returns the numbers of channels that a group may keep, ascending; the last is all of them."""
        n, k = group.n_channels, group.outputs_per_channel
        step = self.round_to // gcd(self.round_to, k)
        least = min(max(1, ceil(self.min_channels / k)), n)
        multiples = np.arange(ceil(least / step) * step, n, step, dtype=np.int64)
        return np.append(multiples if group.name not in self.protected else multiples[:0], n)

    def __str__(self) -> str:
        return f"round_to={self.round_to}, min_channels={self.min_channels}"


@dataclass(frozen=True)
class Ranking:
    """Channels by importance.

    Attributes:
        groups: The groups.
        scores: Of each group's channels, `(n_channels,)`, higher is more important; comparable between groups.
    """

    groups: tuple[Group, ...]
    scores: tuple[NDArray[np.float64], ...]

    def kept(self, n_kept: NKept) -> dict[str, NDArray[np.int64]]:
        """Returns the most important channels of each group, ascending."""
        rows = zip(self.groups, self.scores, n_kept.tolist(), strict=True)
        return {group.name: np.sort(np.argsort(-s, kind="stable")[:n]) for group, s, n in rows}

    @cached_property
    def least_first(self) -> NDArray[np.int64]:
        """The group of each channel, from the least important channel on; equal ones in turn from all groups."""
        owner = np.repeat(np.arange(len(self.groups)), [len(s) for s in self.scores])
        turn = [np.argsort(np.argsort(s, kind="stable")) / len(s) for s in self.scores]
        return owner[np.lexsort((np.concatenate(turn), np.concatenate(self.scores)))]


def by_ratio(groups: Sequence[Group], ratios: Mapping[str, float], limits: Limits) -> NKept:
    """Returns how many channels are left where each group loses a share of its own.

    Args:
        groups: The groups.
        ratios: By name of the group, the share that goes, from 0 to below 1.
        limits: The number that is left is the nearest one that they allow, the larger of two.

    Raises:
        StageError: A ratio leaves less than half a channel of a layer.
    """
    found = []
    for group in groups:
        ratio, allowed = ratios.get(group.name, 0.0), limits.allowed(group)
        wanted = group.n_channels * (1 - ratio)
        if len(allowed) > 1 and floor(wanted + 0.5) < 1:
            raise StageError(
                f"prune.ratio={ratio:g} would empty {group.layers[0]}, which has {group.n_channels} channels: "
                f"it must be below {1 - 0.5 / group.n_channels:.3g} there"
            )
        found.append(allowed[::-1][np.abs(allowed[::-1] - wanted).argmin()])
    return np.array(found, np.int64)


def within(budget: Budget, ranking: Ranking, most: NKept, limits: Limits) -> NKept:
    """Returns how many channels each group keeps: the least important ones go, over all groups, until the budget is met.

    What is left is as near below `keep` as single channels allow; where rounding is too coarse for that, other numbers near
    these are tried, and what is left may then also be a little more than `keep`. It is never off by more than the tolerance, unless
    `most` is below the budget as it is.

    Args:
        budget: What may be left.
        ranking: The channels by importance.
        most: `(n_groups,)`: keep no more than these (what `by_ratio` left).
        limits: What may be left of a layer.

    Raises:
        StageError: No cut that was found meets the budget.
    """
    if budget.shares(most) <= budget.keep:
        return most
    steps = Steps(budget, _allowed_below(ranking, most, limits))
    below = nearest_below(budget, ranking, most, limits)
    if not _is_near(budget, below):
        below = steps.exchanged(below)
    above = below if _is_near(budget, below) else steps.nearer(below)
    if not _is_near(budget, above) and steps.n_combinations <= MOST_COMBINATIONS:
        below, above = steps.nearest_of_all()
    return _checked(budget, limits, below, above)


def nearest_below(budget: Budget, ranking: Ranking, most: NKept, limits: Limits) -> NKept:
    """Returns how many channels each group keeps once the least important ones are cut until the budget is met.

    Args:
        budget: What may be left.
        ranking: The channels by importance.
        most: `(n_groups,)`: keep no more than these.
        limits: What may be left of a layer; if that is more than the budget, it is the result.
    """
    allowed = _allowed_below(ranking, most, limits)
    found = _threshold(budget, ranking, allowed)
    return Steps(budget, allowed).filled(found) if budget.shares(found) <= budget.keep else found


def _allowed_below(ranking: Ranking, most: NKept, limits: Limits) -> list[NDArray[np.int64]]:
    found = zip((limits.allowed(group) for group in ranking.groups), most, strict=True)
    return [allowed[allowed <= n] for allowed, n in found]


def _is_near(budget: Budget, n_kept: NKept) -> bool:
    return bool(abs(budget.shares(n_kept) - budget.keep) <= budget.tolerance)


def _checked(budget: Budget, limits: Limits, below: NKept, above: NKept) -> NKept:
    for n_kept in (below, above):
        if _is_near(budget, n_kept) or not budget.strict:
            return n_kept
    shares = sorted({f"{float(budget.shares(n_kept)):.3f}" for n_kept in (below, above)})
    raise StageError(
        f"prune.keep={budget.keep:g} cannot be met within {budget.tolerance:g}: of the dense network's {budget.of}, the nearest "
        f"cuts leave {' and '.join(shares)} ({limits}; layers that cannot be cut or are protected stay whole)"
    )


def _threshold(budget: Budget, ranking: Ranking, allowed: Sequence[NDArray[np.int64]]) -> NKept:
    """Cuts channels in the order of their importance until the cost is within the budget; bisects, as it only falls."""
    n_channels = np.array([group.n_channels for group in ranking.groups])

    def after(n_cut: int) -> NKept:
        cut = np.bincount(ranking.least_first[:n_cut], minlength=len(n_channels))
        left = n_channels - cut
        places = [min(np.searchsorted(some, n), len(some) - 1) for some, n in zip(allowed, left, strict=True)]
        return np.array([some[at] for some, at in zip(allowed, places, strict=True)], np.int64)

    low, high = 0, len(ranking.least_first)
    while low < high:
        middle = (low + high) // 2
        if budget.shares(after(middle)) <= budget.keep:
            high = middle
        else:
            low = middle + 1
    return after(high)
