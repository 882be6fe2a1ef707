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

MOST_COMBINATIONS = 50_000  # limit of the exhaustive search, which is done if local search misses the budget


@dataclass(frozen=True)
class Limits:
    """How few channels a cut may leave.

    Attributes:
        min_channels: Least output channels of a layer that is cut.
        round_to: A layer that is cut keeps a multiple of this many output channels.
        protected: Names of the groups that stay whole.
    """

    min_channels: int = 1
    round_to: int = 1
    protected: frozenset[str] = frozenset()

    def allowed(self, group: Group) -> NDArray[np.int64]:
        """Returns the numbers of channels that a group may keep, ascending, up to all of them."""
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
        scores: Importance of each group's channels, `(n_channels,)`; higher is more important; comparable
            between groups.
    """

    groups: tuple[Group, ...]
    scores: tuple[NDArray[np.float64], ...]

    def kept(self, n_kept: NKept) -> dict[str, NDArray[np.int64]]:
        """Returns the indices of the `n_kept` most important channels of each group, ascending."""
        rows = zip(self.groups, self.scores, n_kept.tolist(), strict=True)
        return {group.name: np.sort(np.argsort(-s, kind="stable")[:n]) for group, s, n in rows}

    @cached_property
    def least_first(self) -> NDArray[np.int64]:
        """`(n_channels of all groups,)`: index of each channel's group, least important channel first.

        Ties are spread evenly over the groups.
        """
        owner = np.repeat(np.arange(len(self.groups)), [len(s) for s in self.scores])
        quantiles = [np.argsort(np.argsort(s, kind="stable")) / len(s) for s in self.scores]
        return owner[np.lexsort((np.concatenate(quantiles), np.concatenate(self.scores)))]


def by_ratio(groups: Sequence[Group], ratios: Mapping[str, float], limits: Limits) -> NKept:
    """Returns how many channels each group keeps, `(n_groups,)`, if it loses its own ratio of them.

    Args:
        groups: The groups.
        ratios: By name of the group, the share of channels to remove, from 0 to below 1; 0 if not named.
        limits: The result is the nearest number that they allow; of two equally near ones, the larger.

    Raises:
        StageError: A ratio leaves less than half a channel of a layer.
    """
    n_kept = []
    for group in groups:
        ratio, allowed = ratios.get(group.name, 0.0), limits.allowed(group)
        wanted = group.n_channels * (1 - ratio)
        if len(allowed) > 1 and floor(wanted + 0.5) < 1:
            raise StageError(
                f"prune.ratio={ratio:g} would empty {group.layers[0]}, which has {group.n_channels} channels: "
                f"it must be below {1 - 0.5 / group.n_channels:.3g} there"
            )
        n_kept.append(allowed[::-1][np.abs(allowed[::-1] - wanted).argmin()])
    return np.array(n_kept, np.int64)


def within(budget: Budget, ranking: Ranking, most: NKept, limits: Limits) -> NKept:
    """Returns how many channels each group keeps, `(n_groups,)`, to meet a budget.

    Channels are removed over all groups, least important first. The remaining cost is as close below
    `budget.keep` as single channels allow. Where rounding is too coarse for that, similar cuts are tried,
    which may also cost slightly more than `keep`. The cost of a strict budget is never off by more than the
    tolerance, unless `most` already costs less.

    Args:
        budget: The share of the cost that may remain.
        ranking: The channels by importance.
        most: `(n_groups,)`: upper bounds on the kept channels (the result of `by_ratio`).
        limits: How few channels a layer may keep.

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
    """Returns how many channels each group keeps, `(n_groups,)`, after cuts by importance to the budget.

    Args:
        budget: The share of the cost that may remain.
        ranking: The channels by importance.
        most: `(n_groups,)`: upper bounds on the kept channels.
        limits: How few channels a layer may keep; if these cost more than the budget, they are the result.
    """
    allowed = _allowed_below(ranking, most, limits)
    n_kept = _threshold(budget, ranking, allowed)
    return Steps(budget, allowed).filled(n_kept) if budget.shares(n_kept) <= budget.keep else n_kept


def _allowed_below(ranking: Ranking, most: NKept, limits: Limits) -> list[NDArray[np.int64]]:
    pairs = zip((limits.allowed(group) for group in ranking.groups), most, strict=True)
    return [allowed[allowed <= n] for allowed, n in pairs]


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
    """Cuts channels by importance until the budget is met; bisects, as the cost is monotonic."""
    n_channels = np.array([group.n_channels for group in ranking.groups])

    def after(n_cut: int) -> NKept:
        cut = np.bincount(ranking.least_first[:n_cut], minlength=len(n_channels))
        left = n_channels - cut
        indices = [min(np.searchsorted(ns, n), len(ns) - 1) for ns, n in zip(allowed, left, strict=True)]
        return np.array([ns[at] for ns, at in zip(allowed, indices, strict=True)], np.int64)

    low, high = 0, len(ranking.least_first)
    while low < high:
        middle = (low + high) // 2
        if budget.shares(after(middle)) <= budget.keep:
            high = middle
        else:
            low = middle + 1
    return after(high)
