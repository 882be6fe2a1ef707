"""Ratios, rounding, rankings. `test_cut.py` tests budgets over random networks."""

import numpy as np
import pytest

from spaces.errors import StageError
from spaces.pruning.budgets.budget import Limits, Ranking, by_ratio, nearest_below, within
from spaces.pruning.budgets.target import Budget
from spaces.pruning.groups.group import Group, Slice


def group(name, n, k=1):
    return Group(name, (name,), n, (Slice(name, 0, np.arange(n * k).reshape(n, k), "out"),))


GROUPS = (group("a", 16), group("b", 32), group("c", 64))


def linear(weights, keep=0.5):
    """A budget of a cost that is a weighted sum of channels."""
    weights = np.array(weights)
    dense = int(weights @ [g.n_channels for g in GROUPS])
    return Budget(keep, dense, lambda n_kept: n_kept @ weights, "macs")


@pytest.mark.parametrize(
    ("limits", "n", "k", "allowed"),
    [
        (Limits(), 4, 1, [1, 2, 3, 4]),
        (Limits(min_channels=3), 5, 1, [3, 4, 5]),
        (Limits(round_to=4), 10, 1, [4, 8, 10]),
        (Limits(min_channels=5, round_to=4), 16, 1, [8, 12, 16]),
        (Limits(min_channels=20, round_to=4), 16, 1, [16]),
        (Limits(round_to=32), 16, 1, [16]),
        (Limits(round_to=4), 6, 2, [2, 4, 6]),  # two outputs a channel
        (Limits(round_to=4, min_channels=8), 6, 4, [2, 3, 4, 5, 6]),
        (Limits(protected=frozenset({"x"})), 4, 1, [4]),
    ],
)
def test_allowed_numbers_of_channels(limits, n, k, allowed):
    assert limits.allowed(group("x", n, k)).tolist() == allowed


@pytest.mark.parametrize(
    ("ratio", "limits", "kept"),
    [
        (0.0, Limits(), [16, 32, 64]),
        (0.5, Limits(), [8, 16, 32]),
        (0.28, Limits(), [12, 23, 46]),
        (0.6, Limits(round_to=8), [8, 16, 24]),
        (0.9, Limits(min_channels=4), [4, 4, 6]),
        (0.03125, Limits(), [16, 31, 62]),  # of two that are as near, the larger
        (0.5, Limits(protected=frozenset({"b"})), [8, 32, 32]),
    ],
)
def test_ratios(ratio, limits, kept):
    assert by_ratio(GROUPS, dict.fromkeys("abc", ratio), limits).tolist() == kept


def test_every_group_has_its_own_ratio():
    assert by_ratio(GROUPS, {"a": 0.25, "c": 0.5}, Limits()).tolist() == [12, 32, 32]


def test_a_ratio_that_empties_a_layer_raises_and_names_it():
    with pytest.raises(
        StageError, match=r"prune\.ratio=0\.98 would empty a, which has 16 channels: it must be below 0\.969"
    ):
        by_ratio(GROUPS, dict.fromkeys("abc", 0.98), Limits())
    assert by_ratio(GROUPS, dict.fromkeys("bc", 0.98), Limits()).tolist() == [16, 1, 1]
    assert by_ratio(GROUPS, dict.fromkeys("abc", 0.98), Limits(protected=frozenset("a"))).tolist() == [
        16,
        1,
        1,
    ]


def test_the_best_channels_are_kept_and_equal_ones_in_order():
    ranking = Ranking((group("a", 4), group("b", 4)), (np.array([1.0, 3, 2, 0]), np.ones(4)))
    kept = ranking.kept(np.array([2, 3]))
    assert {name: rows.tolist() for name, rows in kept.items()} == {"a": [1, 2], "b": [0, 1, 2]}


def test_the_least_important_channels_of_all_groups_are_cut_first():
    scores = (np.linspace(1, 2, 16), np.linspace(0, 1, 32), np.linspace(3, 4, 64))
    n_kept = within(linear([1, 1, 1], 0.8), Ranking(GROUPS, scores), np.array([16, 32, 64]), Limits())
    assert n_kept.tolist() == [16, 9, 64]  # 112 * 0.8 = 89.6


def test_equally_important_channels_are_cut_evenly():
    ranking = Ranking(GROUPS, tuple(np.zeros(g.n_channels) for g in GROUPS))
    n_kept = within(linear([1, 1, 1], 0.5), ranking, np.array([16, 32, 64]), Limits())
    assert n_kept.tolist() == [8, 16, 32]


def test_the_rest_of_a_budget_is_used():
    """The last cut channel saves more than was needed; a cheap one that was cut before is restored."""
    scores = (np.full(16, 1.0), np.full(32, 2.0), np.full(64, 3.0))
    budget = linear([1, 100, 1], 0.9)
    n_kept = nearest_below(budget, Ranking(GROUPS, scores), np.array([16, 32, 64]), Limits())
    assert n_kept.tolist() == [16, 28, 64]  # all of the first group, which went first


def test_a_budget_that_is_met_already_changes_nothing():
    ranking = Ranking(GROUPS, tuple(np.ones(g.n_channels) for g in GROUPS))
    most = np.array([4, 8, 16])
    assert within(linear([1, 1, 1], 0.5), ranking, most, Limits()) is most


def test_ratios_bound_what_a_budget_keeps():
    ranking = Ranking(GROUPS, tuple(np.ones(g.n_channels) for g in GROUPS))
    most = np.array([2, 32, 64])
    n_kept = within(linear([1, 1, 1], 0.5), ranking, most, Limits())
    assert n_kept[0] <= 2
    assert abs(n_kept.sum() / 112 - 0.5) <= 0.02


@pytest.mark.parametrize(
    ("limits", "keep", "message"),
    [
        (
            Limits(min_channels=16),
            0.2,
            r"keep=0\.2 cannot be met within 0\.02.* leave 0\.429 .*min_channels=16",
        ),
        (Limits(round_to=16), 0.5, r"keep=0\.5 .* leave 0\.429 and 0\.571 \(round_to=16, min_channels=1"),
        (Limits(protected=frozenset("c")), 0.3, r"leave 0\.589 .*protected stay whole"),
    ],
)
def test_a_budget_that_cannot_be_met_raises_with_the_nearest_cuts(limits, keep, message):
    ranking = Ranking(GROUPS, tuple(np.ones(g.n_channels) for g in GROUPS))
    with pytest.raises(StageError, match=message):
        within(linear([1, 1, 1], keep), ranking, np.array([16, 32, 64]), limits)


def test_with_rounding_slightly_more_may_remain():
    ranking = Ranking(GROUPS, tuple(np.ones(g.n_channels) for g in GROUPS))
    budget = linear([1, 1, 1], 0.56)
    n_kept = within(budget, ranking, np.array([16, 32, 64]), Limits(round_to=16))
    assert n_kept.sum() == 64  # 0.571; the next below is 0.429
