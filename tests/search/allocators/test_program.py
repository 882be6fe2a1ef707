"""The exact program against brute force, and its budgets."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from search.allocators.problem import Budget, Problem, average_bits
from search.allocators.program import InfeasibleBudgetError, least_cost, solve
from spaces.errors import ConfigError

FAST = (Phase.explicit, Phase.generate)  # shrinking a failure takes minutes
LAYERS, WIDTHS = tuple("abcde"), (2, 4, 8)


def brute_force(problem: Problem) -> tuple[float, list[dict[str, int]]]:
    """Returns the least loss and all feasible allocations."""
    feasible = []
    for widths in product(*(problem.losses[layer] for layer in problem.losses)):
        allocation = dict(zip(problem.losses, widths, strict=True))
        if any(len({allocation[n] for n in group}) > 1 for group in problem.tied):
            continue
        if any(allocation[n] != width for n, width in problem.fixed.items()):
            continue
        if all(budget.cost(allocation) <= budget.limit for budget in problem.budgets):
            feasible.append(allocation)
    return min(map(problem.loss, feasible), default=math.inf), feasible


figures = st.floats(0, 1000, allow_subnormal=False) | st.integers(0, 20).map(float)
tables = st.fixed_dictionaries({n: st.fixed_dictionaries(dict.fromkeys(WIDTHS, figures)) for n in LAYERS})
pair_tables = st.dictionaries(
    st.sampled_from([("a", "b"), ("b", "c"), ("d", "a"), ("c", "e")]),
    st.fixed_dictionaries({pair: st.floats(-50, 50) for pair in product(WIDTHS, WIDTHS)}),
    max_size=3,
)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    budgets = [
        Budget(f"cost {i}", draw(tables), draw(st.floats(0, 4000))) for i in range(draw(st.integers(0, 2)))
    ]
    tied = draw(st.sampled_from([(), (("a", "b"),), (("a", "c"), ("c", "e")), (("a", "b"), ("d", "e"))]))
    fixed = draw(st.sampled_from([{}, {"e": 8}, {"d": 2}]))
    return Problem(draw(tables), budgets, tied, fixed, draw(pair_tables))


@given(problems())
@settings(max_examples=60, deadline=None, phases=FAST)
def test_equals_brute_force(problem: Problem) -> None:
    least, feasible = brute_force(problem)
    if not feasible:
        with pytest.raises(InfeasibleBudgetError):
            solve(problem)
        return
    solution = solve(problem)
    assert solution.widths in feasible
    assert solution.loss == pytest.approx(least, rel=1e-6, abs=1e-4)


@given(
    st.lists(st.integers(1, 10**6), min_size=5, max_size=5),
    st.sampled_from([2.0, 2.3, 3.0, 4.1, 7.9, 8.0]),
    tables,
)
@settings(max_examples=30, deadline=None, phases=FAST)
def test_average_bits_are_kept(
    n_weights: list[int], limit: float, losses: dict[str, dict[int, float]]
) -> None:
    sizes = dict(zip(LAYERS, n_weights, strict=True))
    widths = solve(Problem(losses, [average_bits(sizes, WIDTHS, limit)])).widths
    assert sum(sizes[n] * w for n, w in widths.items()) <= limit * sum(n_weights) * (1 + 1e-12)


def test_800_layers_keep_the_budget_and_reach_the_bound() -> None:
    rng = np.random.default_rng(0)
    widths, n = (2, 3, 4, 8), 800
    sizes = {f"layer{i}": int(size) for i, size in enumerate(rng.integers(500, 3_000_000, n))}
    losses = {
        name: {w: float(s * 4.0**-w * e) for w, e in zip(widths, rng.uniform(0.5, 2, 4), strict=True)}
        for name, s in zip(sizes, np.exp(rng.normal(0, 2, n)), strict=True)
    }
    budget = average_bits(sizes, widths, 4.0)
    solution = solve(Problem(losses, [budget]))
    assert solution.costs[budget.name] <= budget.limit
    assert budget.limit - solution.costs[budget.name] < 0.001 * budget.limit
    assert solution.loss >= _dual_bound(losses, budget)
    assert solution.loss <= _dual_bound(losses, budget) * 1.001


def _dual_bound(losses: dict[str, dict[int, float]], budget: Budget) -> float:
    """Returns the largest lower bound that a price per bit gives (Lagrange), over a grid of prices."""
    loss = np.array([list(row.values()) for row in losses.values()])
    cost = np.array([list(budget.costs[n].values()) for n in losses])
    return max(
        float((loss + p * cost).min(axis=1).sum()) - p * budget.limit for p in np.geomspace(1e-12, 1e-3, 2000)
    )


ROW = {2: 9.0, 4: 1.0, 8: 0.0}


def test_infeasible_budget_names_the_least_possible() -> None:
    budget = average_bits({"a": 100, "b": 300}, (2, 4, 8), 1.5)
    with pytest.raises(
        InfeasibleBudgetError,
        match=r"1.5 bits per weight is too small: the least possible is 2 bits per weight",
    ):
        solve(Problem({"a": ROW, "b": ROW}, [budget]))


def test_least_possible_counts_fixed_and_tied_layers() -> None:
    budget = average_bits({"a": 100, "b": 300, "c": 100}, (2, 4, 8), 2.5)
    problem = Problem(dict.fromkeys("abc", ROW), [budget], tied=[("a", "b")], fixed={"a": 4})
    assert least_cost(Problem(problem.losses, (), problem.tied, problem.fixed), budget) == 1800
    with pytest.raises(InfeasibleBudgetError, match=r"the least possible is 3\.6 bits per weight"):
        solve(problem)


def test_budgets_that_exclude_each_other_are_named_with_what_is_possible() -> None:
    small = Budget("bytes", {"a": {2: 1.0, 8: 4.0}}, 2.0)
    fast = Budget("latency_ms on chip", {"a": {2: 9.0, 8: 1.0}}, 5.0)
    with pytest.raises(
        InfeasibleBudgetError,
        match=r"2 bytes, least possible with the others kept 4 bytes; 5 latency_ms on chip, .* 9",
    ):
        solve(Problem({"a": {2: 1.0, 8: 0.0}}, [small, fast]))


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (Problem({}), "no layer"),
        (Problem({"conv1": ROW}, fixed={"conv2": 8}), "Did you mean 'conv1'"),
        (
            Problem({"a": ROW, "b": {3: 1.0}}, tied=[("a", "b")]),
            r"no width is allowed for a with b: a has \[2, 4, 8\]; b has \[3\]",
        ),
        (Problem({"a": ROW}, fixed={"a": 3}), "a is fixed at 3 bits"),
        (Problem({"a": {4: math.nan}}), "loss of a at 4 bits is nan"),
        (Problem({"a": ROW}, [Budget("bytes", {"a": {2: 1.0}}, 5.0)]), "bytes of a at 4 bits is not given"),
        (
            Problem({"a": ROW}, [Budget("bytes", {"a": dict.fromkeys(ROW, 1.0)}, math.nan)]),
            "budget of bytes is nan",
        ),
    ],
)
def test_what_does_not_fit_is_named(problem: Problem, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        solve(problem)


def test_an_infinite_loss_forbids_a_width() -> None:
    assert solve(Problem({"a": {2: 0.0, 4: 1.0, 8: math.inf}}, fixed={})).widths == {"a": 2}
    assert solve(Problem({"a": {2: math.inf, 4: 1.0, 8: 5.0}})).widths == {"a": 4}


def test_the_solver_writes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(1)
    sizes = {str(i): int(size) for i, size in enumerate(rng.integers(500, 3_000_000, 50))}
    losses = {n: {w: float(rng.uniform() * 4.0**-w) for w in (2, 3, 4, 8)} for n in sizes}
    for limit in np.arange(2.2, 7.9, 0.5):
        solve(Problem(losses, [average_bits(sizes, (2, 3, 4, 8), float(limit))]))
    assert capfd.readouterr().out == ""
