"""Ratios, rounding, rankings. `test_cut.py` tests budgets over random networks."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.errors import StageError
from spaces.pruning.budgets import budget as budget_module
from spaces.pruning.budgets.budget import Limits, Ranking, by_ratio, nearest_below, within
from spaces.pruning.budgets.budget_steps import Steps
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


limits_of_any_kind = st.builds(
    Limits,
    st.integers(1, 12),
    st.integers(1, 9),
    st.sampled_from([frozenset(), frozenset("a"), frozenset("bc")]),
)


@given(limits_of_any_kind, st.integers(1, 40), st.integers(1, 6))
def test_a_group_may_keep_all_or_any_multiple_that_is_no_less_than_the_least(limits, n, k):
    outputs = {m: m * k for m in range(1, n)}
    some = [m for m, o in outputs.items() if o % limits.round_to == 0 and o >= limits.min_channels]
    assert limits.allowed(group("b", n, k)).tolist() == [*(some if "b" not in limits.protected else []), n]


@given(limits_of_any_kind, st.lists(st.integers(0, 63), min_size=3, max_size=3))
def test_what_is_left_by_a_ratio_is_the_nearest_that_is_allowed_the_larger_of_two(limits, parts):
    ratios = {name: part / 64 for name, part in zip("abc", parts, strict=True)}
    empty = []
    wanted = []
    for g, part in zip(GROUPS, parts, strict=True):
        left, allowed = g.n_channels * (64 - part), limits.allowed(g).tolist()  # in 64ths of a channel
        empty += [g.name] * (len(allowed) > 1 and left < 32)
        wanted.append(min(allowed, key=lambda m, left=left: (abs(64 * m - left), -m)))
    if empty:
        with pytest.raises(StageError, match=f"would empty {empty[0]}"):
            by_ratio(GROUPS, ratios, limits)
    else:
        assert by_ratio(GROUPS, ratios, limits).tolist() == wanted


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


def test_equal_channels_go_in_turn_from_all_groups():
    zeros = Ranking((group("a", 2), group("b", 4)), (np.zeros(2), np.zeros(4)))
    assert zeros.least_first.tolist() == [0, 1, 1, 0, 1, 1]
    scores = (np.array([1.0, 0.0, 2.0]), np.array([0.0, 2.0, 2.0]))
    assert Ranking((group("a", 3), group("b", 3)), scores).least_first.tolist() == [0, 1, 0, 1, 0, 1]


@st.composite
def budgets(draw):
    """A few small groups with scores, limits, what they may keep at most, and a budget of a weighted sum of channels."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    groups = tuple(group(name, n) for name, n in zip("abc", sizes, strict=False))
    scores = tuple(np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), float) for n in sizes)
    limits = Limits(
        draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.sampled_from([frozenset(), frozenset("b")]))
    )
    most = np.array([draw(st.sampled_from(limits.allowed(g).tolist())) for g in groups])
    weights = np.array(draw(st.lists(st.integers(1, 20), min_size=len(sizes), max_size=len(sizes))))
    budget = Budget(
        draw(st.integers(1, 20)) / 20, int(weights @ sizes), lambda n_kept: n_kept @ weights, "macs", 0.02
    )
    return budget, Ranking(groups, scores), most, limits


def every_cut(ranking, most, limits):
    some = [a[a <= n] for a, n in zip(map(limits.allowed, ranking.groups), most, strict=True)]
    return [np.array(cut) for cut in itertools.product(*some)]


@settings(max_examples=60, deadline=None)
@given(budgets())
def test_a_budget_is_met_if_any_cut_meets_it(case):
    budget, ranking, most, limits = case
    cuts = every_cut(ranking, most, limits)
    left = [float(budget.shares(cut)) for cut in cuts]
    if float(budget.shares(most)) <= budget.keep:
        assert within(*case) is most
    elif min(abs(share - budget.keep) for share in left) <= budget.tolerance:
        found = within(*case)
        assert found.tolist() in [cut.tolist() for cut in cuts]
        assert abs(budget.shares(found) - budget.keep) <= budget.tolerance
    else:
        with pytest.raises(StageError) as error:
            within(*case)
        below = max((share for share in left if share <= budget.keep), default=min(left))
        above = min(share for share in left if share > budget.keep)
        shares = sorted({f"{share:.3f}" for share in (below, above)})
        assert f"leave {' and '.join(shares)} (" in str(error.value)


@settings(max_examples=60, deadline=None)
@given(budgets())
def test_the_least_important_go_until_the_budget_is_met_and_no_step_back_fits(case):
    budget, ranking, most, limits = case
    allowed = [a[a <= n] for a, n in zip(map(limits.allowed, ranking.groups), most, strict=True)]

    def after(n_cut):
        """Each group keeps the least that is allowed of no fewer than are left in it."""
        gone = ranking.least_first[:n_cut].tolist()
        left = [g.n_channels - gone.count(i) for i, g in enumerate(ranking.groups)]
        return np.array([min([*a[a >= n], a[-1]]) for a, n in zip(allowed, left, strict=True)])

    cuts = map(after, range(len(ranking.least_first) + 1))
    first = next((cut for cut in cuts if budget.shares(cut) <= budget.keep), None)
    found = nearest_below(*case)
    if first is None:
        assert found.tolist() == [a[0] for a in allowed]
        return
    assert np.all(found >= first)
    assert budget.shares(found) <= budget.keep
    for i, a in enumerate(allowed):
        for more in a[a > found[i]]:
            assert budget.shares(np.where(np.arange(len(allowed)) == i, more, found)) > budget.keep


def test_one_step_for_another_goes_before_a_cut_above_the_budget():
    groups, weights = (group("a", 4), group("b", 2)), np.array([14, 1])
    budget = Budget(0.75, 58, lambda n_kept: n_kept @ weights, "macs")  # 43.5
    case = budget, Ranking(groups, (np.zeros(4), np.ones(2))), np.array([4, 2]), Limits()
    assert nearest_below(*case).tolist() == [2, 2]  # 30; another channel of the first would be 44
    assert within(*case).tolist() == [3, 1]  # 43


@pytest.mark.parametrize("most", [[16, 32], [16, 32, 64, 64]])
def test_there_is_a_number_for_each_group(most):
    ranking = Ranking(GROUPS, tuple(np.ones(g.n_channels) for g in GROUPS))
    for call in (ranking.kept, lambda n: nearest_below(linear([1, 1, 1]), ranking, n, Limits())):
        with pytest.raises(ValueError, match="zip"):
            call(np.array(most))


def test_a_budget_that_is_not_strict_takes_what_is_nearest_below():
    ranking = Ranking(GROUPS, tuple(np.ones(g.n_channels) for g in GROUPS))
    strict = linear([1, 1, 1], 0.5)
    n_kept = within(replace(strict, strict=False), ranking, np.array([16, 32, 64]), Limits(round_to=16))
    assert n_kept.sum() == 48  # 0.429; the next above is 0.571


@pytest.mark.parametrize(("most_combinations", "looked_at"), [(8, True), (7, False)])
def test_all_cuts_are_looked_at_only_where_they_are_few(monkeypatch, most_combinations, looked_at):
    monkeypatch.setattr(budget_module, "MOST_COMBINATIONS", most_combinations)
    called = []
    monkeypatch.setattr(Steps, "nearest_of_all", lambda self: called.append(1) or (np.ones(3),) * 2)
    groups = tuple(group(name, 2) for name in "abc")
    costs = np.array([10, 10, 10])
    budget = Budget(0.6, 60, lambda n_kept: n_kept @ costs, "macs")
    with pytest.raises(StageError):
        within(budget, Ranking(groups, (np.zeros(2),) * 3), np.full(3, 2), Limits())
    assert bool(called) == looked_at


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


@pytest.mark.parametrize("most_combinations", [0, 50_000])
def test_with_rounding_slightly_more_may_remain(monkeypatch, most_combinations):
    monkeypatch.setattr(budget_module, "MOST_COMBINATIONS", most_combinations)
    ranking = Ranking(GROUPS, tuple(np.ones(g.n_channels) for g in GROUPS))
    budget = linear([1, 1, 1], 0.56)
    n_kept = within(budget, ranking, np.array([16, 32, 64]), Limits(round_to=16))
    assert n_kept.sum() == 64  # 0.571; the next below is 0.429
