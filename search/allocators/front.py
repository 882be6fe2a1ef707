"""The whole front of allocations: the least loss for every limit of one budget."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from search.allocators.problem import Budget, Problem
from search.allocators.program import InfeasibleBudgetError, Solution, least_cost, solve

RESOLUTION = 1e-9  # relative difference of costs that are the same


def front(problem: Problem, budget: Budget, n_limits: int | None = None) -> tuple[Solution, ...]:
    """Returns the allocations that no other one beats in loss and cost, cheapest first.

    Args:
        problem: The problem; its own budgets are kept at every point.
        budget: The budget that is swept up to its limit.
        n_limits: Number of limits, evenly spaced from the least possible cost on; None finds every point of the front, by
            lowering the limit below each solution's cost (the epsilon-constraint method).

    Raises:
        ConfigError: The problem's names or figures do not fit together.
        InfeasibleBudgetError: No allocation keeps the budgets.
    """
    last = solve(replace(problem, budgets=(*problem.budgets, budget)))
    if n_limits is None:
        return undominated(_every_point(problem, budget, last), budget.name)
    least = least_cost(problem, budget)
    assert least is not None  # `last` is one
    limits = np.linspace(least, last.costs[budget.name], n_limits)[:-1].tolist()
    return undominated([last, *(_with_limit(problem, budget, limit) for limit in limits)], budget.name)


def _every_point(problem: Problem, budget: Budget, last: Solution) -> list[Solution]:
    found = [last]
    while True:
        cost = found[-1].costs[budget.name]
        below = cost - max(abs(cost), 1.0) * RESOLUTION
        try:
            found.append(_with_limit(problem, budget, below))
        except InfeasibleBudgetError:
            return found


def _with_limit(problem: Problem, budget: Budget, limit: float) -> Solution:
    return solve(replace(problem, budgets=(*problem.budgets, replace(budget, limit=limit))))


def undominated(solutions: Iterable[Solution], cost: str) -> tuple[Solution, ...]:
    """Returns the solutions that no other one beats in loss and the named cost, cheapest first."""
    kept: list[Solution] = []
    for solution in sorted(solutions, key=lambda s: (s.costs[cost], s.loss)):
        if not kept or solution.loss < kept[-1].loss:
            kept.append(solution)
    return tuple(kept)
