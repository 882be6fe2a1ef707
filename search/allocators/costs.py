"""Costs of single layers, from the known costs of whole candidates: their differences, where these add up.

A 0-1 program needs costs that are sums over layers. Bytes of weights are, and so is latency by a roofline whose kernels run one
after another; a peak of memory is none. Each unit gets each of its widths alone, and what changes is the width's cost; further
allocations at random tell whether the changes add up.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from search.allocators.problem import Allocation, Table

Costs = Mapping[str, float]
"""Column of trials.csv to value."""

KnownCosts = Callable[[Sequence[Allocation]], Sequence[Costs]]
"""Returns the costs of allocations that are known before a trial; a column is absent where a candidate has none."""

N_CHECKS = 6  # allocations at random
TOLERANCE = 1e-2  # of a cost, by which the sum over layers may miss it: a file has an entry more with its first layer of a kind
ABSENT = "it is known only after a trial, or the device takes none of the widths"


@dataclass(frozen=True)
class LayerCosts:
    """Costs by column.

    Attributes:
        tables: Column to the costs of units and widths; their sum over all units is the candidate's cost. Infinite where a
            candidate with that width has no such cost, e.g. on a device that does not take the format.
        reasons: Column to why it has no table.
    """

    tables: Mapping[str, Table]
    reasons: Mapping[str, str]


def layer_costs(
    options: Mapping[str, Sequence[int]], columns: Collection[str], known: KnownCosts, seed: int = 0
) -> LayerCosts:
    """Returns the costs of all units and widths.

    Args:
        options: Unit to its widths in bits.
        columns: The columns that are wanted.
        known: Computes costs of allocations.
        seed: Seed of the allocations that are drawn.
    """
    uniform = _uniform(options)
    rows = known(list(uniform.values()))
    if not any(column in row for row in rows for column in columns):
        return LayerCosts({}, dict.fromkeys(columns, ABSENT))
    usable = _usable(dict(zip(uniform, rows, strict=True)), columns)
    base = _mixed(options, usable)
    singles = {
        (unit, w): {**base, unit: w} for unit, widths in options.items() for w in widths if w != base[unit]
    }
    checks = [uniform[w] for w in usable] + _drawn(options, usable, seed)
    at_base, *others = known([base, *singles.values(), *checks])
    fit = _Fit(options, base, at_base, dict(zip(singles, others, strict=False)))
    checked = list(zip(checks, others[len(singles) :], strict=True))
    found = {column: fit.table(column, checked) for column in columns}
    return LayerCosts(
        {column: table for column, table in found.items() if not isinstance(table, str)},
        {column: reason for column, reason in found.items() if isinstance(reason, str)},
    )


def _uniform(options: Mapping[str, Sequence[int]]) -> dict[int, Allocation]:
    """Returns for each width the allocation whose units have it, or the nearest that they may have."""
    widths = sorted(set(chain.from_iterable(options.values())))
    return {w: {unit: _nearest(own, w) for unit, own in options.items()} for w in widths}


def _usable(rows: Mapping[int, Costs], columns: Collection[str]) -> list[int]:
    """Returns the widths at which most of the columns are known."""
    n_known = {width: sum(column in row for column in columns) for width, row in rows.items()}
    return [width for width, n in n_known.items() if n == max(n_known.values())]


def _mixed(options: Mapping[str, Sequence[int]], usable: Sequence[int]) -> Allocation:
    """Returns an allocation with all usable widths: a file may have more entries for the first layer of a kind."""
    return {unit: _nearest(own, usable[i % len(usable)]) for i, (unit, own) in enumerate(options.items())}


def _drawn(options: Mapping[str, Sequence[int]], usable: Sequence[int], seed: int) -> list[Allocation]:
    rng = np.random.default_rng(seed)
    return [
        {unit: _nearest(own, int(rng.choice(usable))) for unit, own in options.items()}
        for _ in range(N_CHECKS)
    ]


def _nearest(widths: Sequence[int], width: int) -> int:
    return min(widths, key=lambda own: (abs(own - width), own))


@dataclass(frozen=True)
class _Fit:
    """Costs of an allocation, and of all that differ from it in one unit."""

    options: Mapping[str, Sequence[int]]
    base: Allocation
    at_base: Costs
    singles: Mapping[tuple[str, int], Costs]

    def table(self, column: str, checks: Sequence[tuple[Allocation, Costs]]) -> Table | str:
        """Returns the costs of one column, or why there are none."""
        if column not in self.at_base:
            return ABSENT
        table = self._differences(column)
        first = next(iter(table))
        _add(table[first], self.at_base[column])
        pairs = [(row[column], _sum(table, allocation)) for allocation, row in checks if column in row]
        for cost, added in pairs:
            if abs(cost - added) > TOLERANCE * abs(cost):
                return f"it is no sum over layers: an allocation has {cost:.6g}, but its layers' changes add up to {added:.6g}"
        # so that no sum is below the real cost
        _add(table[first], max([0.0, *(cost - added for cost, added in pairs)]))
        return table

    def _differences(self, column: str) -> dict[str, dict[int, float]]:
        start = self.at_base[column]
        return {
            unit: {
                w: 0.0 if w == self.base[unit] else self.singles[unit, w].get(column, math.inf) - start
                for w in widths
            }
            for unit, widths in self.options.items()
        }


def _sum(table: Table, allocation: Allocation) -> float:
    return math.fsum(table[unit][width] for unit, width in allocation.items())


def _add(row: dict[int, float], constant: float) -> None:
    for width in row:
        row[width] += constant
