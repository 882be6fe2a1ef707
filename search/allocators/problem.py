"""What an allocator is given: losses by layer and width, budgets, tied and fixed layers."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from spaces.errors import ConfigError, unknown_name

Table = Mapping[str, Mapping[int, float]]
"""Layer to width in bits to a figure: a loss or a cost."""

Allocation = dict[str, int]
"""Layer to width in bits."""

Pair = tuple[str, str]
PairTable = Mapping[Pair, Mapping[tuple[int, int], float]]
"""Two layers to their two widths to the loss that both cause together, beyond the sum of their own."""


@dataclass(frozen=True)
class Budget:
    """A linear budget: the sum over all layers of the cost of their widths.

    Attributes:
        name: Its name in messages, with the unit, e.g. `packed_bytes` or `latency_ms on stm32h743`.
        costs: Layer to width to cost.
        limit: The most that the sum may be.
        per: Divisor of costs in messages, e.g. all weights for bits per weight.
    """

    name: str
    costs: Table
    limit: float
    per: float = 1.0

    def text(self, cost: float) -> str:
        """Returns a cost with the budget's name, for messages."""
        return f"{cost / self.per:.10g} {self.name}"

    def cost(self, allocation: Mapping[str, int]) -> float:
        """Returns an allocation's cost, correctly rounded."""
        return math.fsum(self.costs[layer][width] for layer, width in allocation.items())


def average_bits(n_weights: Mapping[str, int], widths: Iterable[int], limit: float) -> Budget:
    """Returns the budget of an average width in bits per weight, with costs in bits of all weights.

    Args:
        n_weights: Layer to its number of weights.
        widths: All widths that occur, in bits.
        limit: The largest average.
    """
    widths = tuple(widths)
    costs = {layer: {width: float(n * width) for width in widths} for layer, n in n_weights.items()}
    # 2.9999999999999996 bits times the weights must not lose a bit that 3 bits have
    total = sum(n_weights.values())
    return Budget("bits per weight", costs, math.floor(limit * total + 1e-6), float(total))


@dataclass(frozen=True)
class Problem:
    """One width for each layer, such that the sum of the losses is least.

    Attributes:
        losses: Layer to width to loss; only these widths are allowed. An infinite loss forbids a width.
        budgets: All are kept.
        tied: Groups of layers that share a width, e.g. those that are added to one another.
        fixed: Layer to the width that it keeps.
        pairs: Losses that two layers cause together.
    """

    losses: Table
    budgets: Sequence[Budget] = ()
    tied: Sequence[Sequence[str]] = ()
    fixed: Mapping[str, int] = field(default_factory=dict)
    pairs: PairTable = field(default_factory=dict)

    def loss(self, allocation: Mapping[str, int]) -> float:
        """Returns the predicted loss of an allocation."""
        alone = [self.losses[layer][width] for layer, width in allocation.items()]
        return math.fsum(
            alone + [t.get((allocation[a], allocation[b]), 0.0) for (a, b), t in self.pairs.items()]
        )

    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Returns the layers in groups that share a width, in the order of `losses`; most have one member."""
        found: list[set[str]] = [{layer} for layer in self.losses]
        for tied in self.tied:
            joined = set().union(*(group for group in found if not group.isdisjoint(tied)))
            found = [group for group in found if group.isdisjoint(joined)] + [joined]
        place = {layer: i for i, layer in enumerate(self.losses)}
        ordered = [tuple(sorted(group, key=place.__getitem__)) for group in found]
        return tuple(sorted(ordered, key=lambda group: place[group[0]]))

    def options(self, group: Sequence[str]) -> tuple[int, ...]:
        """Returns the widths that all layers of a group allow.

        Raises:
            ConfigError: There is none.
        """
        found = [w for w, loss in self.losses[group[0]].items() if loss < math.inf]
        for layer in group:
            allowed = {w for w, loss in self.losses[layer].items() if loss < math.inf}
            allowed &= {self.fixed[layer]} if layer in self.fixed else allowed
            found = [w for w in found if w in allowed]
        if not found:
            raise ConfigError(
                f"allocator: no width is allowed for {' with '.join(group)}: {self._allowed(group)}"
            )
        return tuple(found)

    def admits(self, allocation: Mapping[str, int]) -> bool:
        """Whether an allocation has a width that is allowed for every layer, equal ones for tied layers, and keeps the budgets."""
        for group in self.groups():
            widths = {allocation.get(layer) for layer in group}
            if len(widths) > 1 or not widths <= {*self.options(group)}:
                return False
        return all(
            math.fsum(budget.costs[layer].get(allocation[layer], math.inf) for layer in self.losses)
            <= budget.limit
            for budget in self.budgets
        )

    def check(self) -> None:
        """Raises ConfigError for names, widths or figures that do not fit together."""
        if not self.losses:
            raise ConfigError("allocator: there is no layer to allocate bits to")
        named = [
            *self.fixed,
            *(n for group in self.tied for n in group),
            *(n for pair in self.pairs for n in pair),
        ]
        for name in named:
            if name not in self.losses:
                raise ConfigError(unknown_name("layer", name, self.losses, "allocator"))
        for layer, row in self.losses.items():
            for width, loss in row.items():
                if math.isnan(loss) or loss == -math.inf:
                    raise ConfigError(
                        f"allocator: the loss of {layer} at {width} bits is {loss}, not a number"
                    )
        for budget in self.budgets:
            self._check_budget(budget)

    def _check_budget(self, budget: Budget) -> None:
        if not math.isfinite(budget.limit):
            raise ConfigError(
                f"allocator: the budget of {budget.name} is {budget.limit}; give a finite number"
            )
        for group in self.groups():
            for layer in group:
                for width in self.options(group):
                    cost = budget.costs.get(layer, {}).get(width, math.nan)
                    if not math.isfinite(cost):
                        raise ConfigError(f"allocator: {budget.name} of {layer} at {width} bits is not given")

    def _allowed(self, group: Sequence[str]) -> str:
        kept = [f"{n} is fixed at {self.fixed[n]} bits" for n in group if n in self.fixed]
        return "; ".join([*(f"{n} has {sorted(self.losses[n])}" for n in group), *kept])
