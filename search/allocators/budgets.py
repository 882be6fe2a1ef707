"""Budgets of a study: limits on costs that are known before a trial and add up over layers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evaluators.column import Column
from search.allocators.base import Limits
from search.allocators.costs import LayerCosts, layer_costs
from search.allocators.problem import Budget, Problem, Table
from search.allocators.program import cheapest
from search.record.results import Constraint
from spaces.errors import ConfigError

WHERE = "allocator.budgets"


def study_budgets(
    rules: Mapping[str, Any], of_objective: bool, problem: Problem, limits: Limits
) -> dict[str, Budget]:
    """Returns the budgets by the names of their limits.

    Limits of the objective become budgets where they can: upper ones, on costs that are known before a trial, add up over layers and
    differ between widths. One that no allocation keeps is left to the trials if other knobs may keep it.

    Args:
        rules: The section `allocator.budgets`.
        of_objective: Whether limits of the objective become budgets, too.
        problem: The widths that are allowed, without budgets.
        limits: Costs and limits of the study.

    Raises:
        ConfigError: A budget is no upper limit, or its cost is no sum over layers.
    """
    own = limits.read(rules, WHERE)
    others = [c for c in limits.constraints if c.kind == "max"] if of_objective else []
    if not own and not others:
        return {}
    options = {unit: problem.options([unit]) for unit in problem.losses}
    costs = layer_costs(options, {c.column for c in (*own, *others)}, limits.known)
    found = {c.name: _own_budget(c, costs) for c in own}
    names = {budget.name for budget in found.values()}
    for constraint in others:
        budget = _objective_budget(constraint, costs, problem, limits)
        if budget is not None and budget.name not in names:
            found[constraint.name] = budget
    return found


def without_unknown(problem: Problem) -> Problem:
    """Returns the problem without the widths that have no cost, e.g. on a device that does not take the format."""
    losses = {
        unit: {w: loss if _has_costs(problem.budgets, unit, w) else math.inf for w, loss in row.items()}
        for unit, row in problem.losses.items()
    }
    return replace(problem, losses=losses)


def _has_costs(budgets: Sequence[Budget], unit: str, width: int) -> bool:
    return all(budget.costs[unit].get(width, 0.0) < math.inf for budget in budgets)


def _own_budget(constraint: Constraint, costs: LayerCosts) -> Budget:
    where = f"{WHERE}.{constraint.name}"
    if constraint.kind != "max":
        raise ConfigError(
            f"{where}: a budget is an upper limit, `max`; make a lower one a limit of the objective"
        )
    if constraint.column in costs.reasons:
        raise ConfigError(
            f"{where}: {_name(constraint)} cannot be a budget of layers: {costs.reasons[constraint.column]}; make it a limit of the "
            "objective, which trials are judged by"
        )
    return _budget(constraint, costs.tables[constraint.column])


def _objective_budget(
    constraint: Constraint, costs: LayerCosts, problem: Problem, limits: Limits
) -> Budget | None:
    table = costs.tables.get(constraint.column)
    if table is None or all(len(set(row.values())) == 1 for row in table.values()):
        return None
    budget = _budget(constraint, table)
    widths = cheapest(problem, budget)
    missing = 0.0 if widths is None else budget.cost(widths) - budget.limit
    if widths is None or missing <= 0 or limits.savings(widths, constraint.column) < missing:
        return budget
    return None


def _budget(constraint: Constraint, table: Table) -> Budget:
    return Budget(_name(constraint), table, constraint.bound)


def _name(constraint: Constraint) -> str:
    column = Column.parse(constraint.column)
    return f"{column.name} on {column.device}" if column.device else column.name
