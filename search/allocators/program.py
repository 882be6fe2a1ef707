"""The exact allocation: a multiple-choice knapsack as a 0-1 program, solved by HiGHS.

Kellerer, Pferschy and Pisinger, "Knapsack Problems" (2004), chapter 11. A layer's width is one choice among its options;
the sum of the losses is minimised under linear budgets. With pairs of layers the program is the linearised one of Sherali
and Adams (1990): a continuous variable for each pair of options, consistent with both choices.
"""

import ctypes
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.allocators.problem import Allocation, Budget, Problem
from spaces.errors import ConfigError

Floats = NDArray[np.float64]

CORE_OPTIONS = 60  # options besides the best ones in the first reduced program
# Costs of whole numbers are scaled so that HiGHS's absolute tolerance, 1e-6, is far below one unit. Others are not: where a
# solution exceeds a limit by a little more than the tolerance, HiGHS 1.12 may call the program infeasible.
INTEGER_SCALE, SCALE = 1e6, 1e3
COST_SCALE = 1e3


class InfeasibleBudgetError(ConfigError):
    """No allocation keeps the budgets."""


@dataclass(frozen=True)
class Solution:
    """An allocation with its figures.

    Attributes:
        widths: Layer to width in bits.
        loss: The predicted loss.
        costs: Budget name to the allocation's cost.
    """

    widths: Allocation
    loss: float
    costs: Mapping[str, float]


def solve(problem: Problem) -> Solution:
    """Returns the allocation of least loss among those that keep every budget.

    Raises:
        ConfigError: The problem's names or figures do not fit together.
        InfeasibleBudgetError: No allocation keeps the budgets; the message names the least possible.
    """
    problem.check()
    program = _Program(problem)
    widths = program.minimum()
    if widths is None:
        raise InfeasibleBudgetError(_least_possible(problem))
    return Solution(widths, problem.loss(widths), {b.name: b.cost(widths) for b in problem.budgets})


def cheapest(problem: Problem, budget: Budget) -> Allocation | None:
    """Returns the allocation of least cost among all that keep the problem's budgets; None if there is none."""
    return _Program(replace(problem, losses=_allowed_costs(problem, budget), pairs={})).minimum()


def least_cost(problem: Problem, budget: Budget) -> float | None:
    """Returns the least cost of all allocations that keep the problem's budgets; None if there is none."""
    widths = cheapest(problem, budget)
    return None if widths is None else budget.cost(widths)


def _allowed_costs(problem: Problem, budget: Budget) -> dict[str, dict[int, float]]:
    return {
        layer: {
            w: budget.costs[layer].get(w, math.inf) if loss < math.inf else math.inf
            for w, loss in row.items()
        }
        for layer, row in problem.losses.items()
    }


def _least_possible(problem: Problem) -> str:
    for budget in problem.budgets:
        least = least_cost(replace(problem, budgets=()), budget)
        if least is not None and least > budget.limit:
            return f"allocator: the budget of {budget.text(budget.limit)} is too small: the least possible is {budget.text(least)}"
    parts = []
    for budget in problem.budgets:
        least = least_cost(replace(problem, budgets=[b for b in problem.budgets if b is not budget]), budget)
        if least is not None:
            parts.append(
                f"{budget.text(budget.limit)}, least possible with the others kept {budget.text(least)}"
            )
    if not parts:
        names = ", ".join(b.text(b.limit) for b in problem.budgets)
        return f"allocator: no allocation keeps these budgets together: {names}; raise two of them"
    return f"allocator: each budget can be kept, but not all together ({'; '.join(parts)})"


class _Program:
    """The 0-1 program of a problem: a variable for each option, and one for each pair of options.

    Args:
        problem: A checked problem.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem, self._groups = problem, problem.groups()
        self._options = [
            (g, width) for g, group in enumerate(self._groups) for width in problem.options(group)
        ]
        self._group = np.array([g for g, _ in self._options])
        self._cuts: list[list[int]] = []
        self._scales = (INTEGER_SCALE, SCALE)
        self._own = [self._sum(problem.losses, g, w) for g, w in self._options]
        self._pairs = self._pair_options()
        self._loss = np.array(self._own + [loss for *_, loss in self._pairs])

    def minimum(self) -> Allocation | None:
        """Returns the allocation of least loss; None if none keeps the budgets."""
        while (chosen := self._solved() or self._solved_with_tolerance()) is not None:
            widths = {n: w for g, w in map(self._options.__getitem__, chosen) for n in self._groups[g]}
            if all(budget.cost(widths) <= budget.limit for budget in self._problem.budgets):
                return widths
            self._cuts.append(chosen)  # HiGHS's tolerance let it through
        return None

    def _solved_with_tolerance(self) -> list[int] | None:
        """Solves the program with limits that may be exceeded by a millionth, which cuts correct."""
        self._scales = (1.0, 1.0)
        return self._solved()

    def _sum(self, table: Mapping[str, Mapping[int, float]], group: int, width: int) -> float:
        return math.fsum(table[layer][width] for layer in self._groups[group])

    def _pair_options(self) -> list[tuple[int, int, float]]:
        """Returns pairs of options of two groups with their common loss; pairs within a group are added to its own loss."""
        group_of = {layer: g for g, group in enumerate(self._groups) for layer in group}
        found: dict[tuple[int, int], float] = {}
        for (a, b), table in self._problem.pairs.items():
            for i in np.flatnonzero(self._group == group_of[a]):
                for j in np.flatnonzero(self._group == group_of[b]):
                    loss = table.get((self._options[i][1], self._options[j][1]), 0.0)
                    if group_of[a] != group_of[b]:
                        key = (int(min(i, j)), int(max(i, j)))
                        found[key] = found.get(key, 0.0) + loss
                    elif i == j:
                        self._own[i] += loss
        return [(i, j, loss) for (i, j), loss in found.items()]

    def _solved(self) -> list[int] | None:
        """Returns the chosen options' positions.

        The linear relaxation bounds the loss of every solution that contains an option from below, by its reduced cost.
        A program of the options with small reduced costs is solved first; if its solution is no worse than the bound of
        all others, it is the solution of the whole program.
        """
        rows = self._rows()
        relaxed = _relaxation(self._loss - self._shift(), rows)
        if relaxed is None:
            return None
        bound, reduced = relaxed
        above = np.sort(reduced[: len(self._options)])
        margin = float(above[min(len(self._groups) + CORE_OPTIONS, len(above) - 1)])
        while True:
            kept = reduced <= margin
            found = self._integer(kept, rows)
            if kept.all():
                return None if found is None else found[0]
            if found is not None and found[1] - bound <= margin:
                return found[0]
            margin = math.inf if found is None else (found[1] - bound) * (1 + 1e-6)

    def _shift(self) -> Floats:
        """Returns the least loss of each option's group, 0 for pairs: what every allocation loses is subtracted."""
        least = np.array(
            [self._loss[: len(self._group)][self._group == g].min() for g in range(len(self._groups))]
        )
        return np.concatenate([least[self._group], np.zeros(len(self._pairs))])

    def _integer(self, kept: NDArray[np.bool_], rows: "_Rows") -> tuple[list[int], float] | None:
        """Solves the program of some options exactly; returns the chosen options and their loss above the shift."""
        from scipy.optimize import LinearConstraint, milp

        n = len(self._options)
        loss = (self._loss - self._shift())[kept]
        scale = _scale(COST_SCALE, float(np.abs(loss).max()))
        integral = (np.arange(len(kept)) < n)[kept]
        equal = LinearConstraint(rows.equal[:, kept], rows.right, rows.right)
        below = [LinearConstraint(rows.below[:, kept], -np.inf, rows.limits)] if rows.below.shape[0] else []
        with _muted():
            result = milp(
                loss * scale,
                integrality=integral,
                bounds=(0, np.inf),
                constraints=[equal, *below],
                options={"mip_rel_gap": 0.0},
            )
        if result.x is None:
            return None
        chosen = np.flatnonzero(kept)[result.x > 0.5]
        return [int(i) for i in chosen if i < n], float(result.fun) / scale

    def _rows(self) -> "_Rows":
        """Returns the constraints: one option per group, consistent pairs, the budgets, and cuts."""
        from scipy.sparse import csr_array

        n, size = len(self._options), len(self._loss)
        entries = [(g, i, 1.0) for i, g in enumerate(self._group)]
        n_rows = len(self._groups)
        by_side: dict[tuple[int, int], int] = {}
        for k, (i, j, _) in enumerate(self._pairs):
            for own, other in ((i, self._group[j]), (j, self._group[i])):
                key = (own, int(other))
                if key not in by_side:
                    by_side[key] = n_rows + len(by_side)
                    entries.append((by_side[key], own, -1.0))
                entries.append((by_side[key], n + k, 1.0))
        right = np.concatenate([np.ones(n_rows), np.zeros(len(by_side))])
        equal = _sparse(entries, (len(right), size))
        costs = [self._cost_row(budget) for budget in self._problem.budgets]
        limits = [limit for _, limit in costs] + [len(cut) - 1.0 for cut in self._cuts]
        below = [row for row, _ in costs] + [
            np.isin(np.arange(size), cut).astype(float) for cut in self._cuts
        ]
        return _Rows(equal, right, csr_array(np.array(below).reshape(len(below), size)), np.array(limits))

    def _cost_row(self, budget: Budget) -> tuple[Floats, float]:
        costs = np.array([self._sum(budget.costs, g, w) for g, w in self._options])
        least = np.array([costs[self._group == g].min() for g in range(len(self._groups))])
        whole = all(cost.is_integer() for cost in costs.tolist())
        limit = math.floor(budget.limit) + 0.5 if whole else budget.limit
        extra, left = (
            costs - least[self._group],
            limit - math.fsum(least),
        )  # the least of each group is spent anyway
        scale = _scale(self._scales[0 if whole else 1], max(float(extra.max()), abs(left)))
        return np.concatenate([extra, np.zeros(len(self._pairs))]) * scale, left * scale


@dataclass(frozen=True)
class _Rows:
    """Constraints `equal @ x = right` and `below @ x <= limits`."""

    equal: Any
    right: Floats
    below: Any
    limits: Floats


def _scale(wanted: float, largest: float) -> float:
    """Returns the factor that makes the largest magnitude the wanted one."""
    return wanted / largest if largest > 1e-200 else 1.0


def _sparse(entries: Sequence[tuple[int, int, float]], shape: tuple[int, int]) -> Any:
    from scipy.sparse import csr_array

    rows, columns, values = zip(*entries, strict=True)
    return csr_array((values, (rows, columns)), shape=shape)


def _relaxation(loss: Floats, rows: _Rows) -> tuple[float, Floats] | None:
    """Returns the value of the linear relaxation and the reduced costs of its variables; None if it has no solution."""
    from scipy.optimize import linprog

    scale = _scale(COST_SCALE, float(np.abs(loss).max()))
    below = (rows.below, rows.limits) if rows.below.shape[0] else (None, None)
    result = linprog(loss * scale, *below, rows.equal, rows.right, bounds=(0, None), method="highs")
    if result.status != 0:
        return None
    return float(result.fun) / scale, np.maximum(np.asarray(result.lower.marginals), 0.0) / scale


@contextmanager
def _muted() -> Iterator[None]:
    """Drops what C code writes to the standard output: HiGHS 1.12 prints a line of its own debugging now and then."""
    if os.name != "posix":
        yield
        return
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # C's buffer is written when it is full, or now
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
