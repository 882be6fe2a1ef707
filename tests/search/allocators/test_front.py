"""The front of allocations, groups with budgets of their own, and protected layers."""

from itertools import product

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from search.allocators.front import front
from search.allocators.groups import divided, family, protected
from search.allocators.problem import Budget, Problem
from search.allocators.program import InfeasibleBudgetError
from spaces.errors import ConfigError

WIDTHS = (2, 4, 8)
figures = st.integers(0, 30).map(float)
tables = st.fixed_dictionaries({n: st.fixed_dictionaries(dict.fromkeys(WIDTHS, figures)) for n in "abc"})


@given(tables, tables)
@settings(max_examples=12, deadline=None, phases=(Phase.explicit, Phase.generate))
def test_every_point_equals_brute_force(losses, costs):
    budget = Budget("bytes", costs, 1000.0)
    found = front(Problem(losses), budget)
    points = set()
    for widths in product(WIDTHS, repeat=3):
        allocation = dict(zip("abc", widths, strict=True))
        points.add((budget.cost(allocation), Problem(losses).loss(allocation)))
    best = sorted(p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points))
    assert [s.costs["bytes"] for s in found] == pytest.approx([cost for cost, _ in best])
    assert [s.loss for s in found] == pytest.approx([loss for _, loss in best])


def test_a_few_limits_give_points_of_the_front():
    losses = {n: {w: 4.0**-w * (i + 1) for w in WIDTHS} for i, n in enumerate("abcdef")}
    budget = Budget(
        "bits", {n: {w: float(w * (7 - i)) for w in WIDTHS} for i, n in enumerate(losses)}, 1000.0
    )
    every = {s.costs["bits"]: s.loss for s in front(Problem(losses), budget)}
    few = front(Problem(losses), budget, 5)
    assert len(few) <= 5
    assert all(s.loss == pytest.approx(every[s.costs["bits"]], abs=1e-9) for s in few)
    assert few[0].widths == dict.fromkeys(losses, 2)
    assert few[-1].widths == dict.fromkeys(losses, 8)


@given(st.floats(2, 8), st.integers(1, 10**6), st.integers(1, 10**6), st.floats(0.46, 1.36))
def test_a_divided_budget_has_the_average(average, n_first, n_second, ratio):
    first, second = divided(average, n_first, n_second, ratio)
    assert second == pytest.approx(ratio * first)
    assert (first * n_first + second * n_second) / (n_first + n_second) == pytest.approx(average)


QUALITY = Problem({"conv": {4: 1.0, 8: 0.0}, "attention": {4: 2.0, 8: 0.0}})
CONTENT = Problem({"feed_forward": {2: 9.0, 4: 1.0, 8: 0.0}, "cross": {2: 5.0, 4: 1.0, 8: 0.0}})
SIZES = {"conv": 100, "attention": 300, "feed_forward": 200, "cross": 200}


def test_a_family_keeps_the_average_of_all_weights():
    found = family(QUALITY, CONTENT, SIZES, [4.0, 5.0, 6.0], [0.5, 0.8, 1.0, 1.2])
    assert len(found) > 3
    for pair in found:
        widths = {**pair[0].widths, **pair[1].widths}
        assert set(widths) == set(SIZES)
        assert sum(SIZES[n] * w for n, w in widths.items()) / 800 <= 6.0


def test_divisions_that_cannot_be_kept_are_skipped_or_named():
    with pytest.raises(InfeasibleBudgetError, match="no ratio"):
        family(QUALITY, CONTENT, SIZES, [3.0], [1.0])
    with pytest.raises(ConfigError, match="conv is in two groups"):
        family(QUALITY, QUALITY, SIZES, [5.0], [1.0])


def test_the_most_sensitive_layers_keep_their_largest_width():
    losses = {"a": {2: 1.0, 8: 0.0}, "b": {2: 9.0, 8: 0.0}, "c": {2: 3.0, 8: 0.0}}
    assert protected(losses, 0.01) == {"b": 8}
    assert protected(losses, 0.5) == {"b": 8, "c": 8}
    assert protected(losses, 0.0) == {}
