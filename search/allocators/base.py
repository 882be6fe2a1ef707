"""What an allocator is, and what a study tells it about the layers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from search.allocators.costs import Costs
from search.allocators.problem import Allocation, Problem, Table
from search.allocators.program import Solution
from search.record.results import Constraint
from spaces.errors import ConfigError


@dataclass(frozen=True)
class LayerKnob:
    """A knob that gives one or several layers their width.

    Attributes:
        layers: Names of the layers; all get the knob's value.
        widths: The knob's parameters, as in `optuna.trial.Trial.params`, to widths in bits.
    """

    layers: tuple[str, ...]
    widths: Mapping[Any, int]


class Measure(Protocol):
    """Measures the layers where trials run."""

    def __call__(
        self, sensitivity: str, widths: Mapping[str, Sequence[int]], n_examples: int, grid: Mapping[str, str]
    ) -> Table:
        """Returns the loss of the output with only one layer at a width, by layer and width.

        Args:
            sensitivity: Name of the loss.
            widths: Layer to widths in bits.
            n_examples: Calibration examples.
            grid: `scheme`, `granularity`, `clipping` and `rounding` of the weights.

        Raises:
            ParedownError: The losses cannot be measured.
        """


class Limits(Protocol):
    """What is known of a study's costs and limits before its trials."""

    @property
    def constraints(self) -> Sequence[Constraint]:
        """The limits of the objective."""

    def savings(self, allocation: Allocation, column: str) -> float:
        """Returns what the other knobs can save of an allocation's cost: the savings of each alone, added up."""

    def read(self, rules: Mapping[str, Any], where: str) -> Sequence[Constraint]:
        """Returns limits that are written as those of the objective are.

        Raises:
            ConfigError: A name, a device or a limit is wrong.
        """

    def known(self, allocations: Sequence[Allocation]) -> Sequence[Costs]:
        """Returns the costs of allocations by column, with all other knobs at their defaults."""


@dataclass(frozen=True)
class AllocationContext:
    """What a study tells its allocator.

    Attributes:
        knobs: Path to knob, for every knob that belongs to layers and has numbers of bits as values.
        measure: Measures the layers; None where only given losses can be used.
        n_weights: Layer to its number of weights.
        limits: Costs and limits; None without.
    """

    knobs: Mapping[str, LayerKnob]
    measure: Measure | None = None
    n_weights: Mapping[str, int] = field(default_factory=dict)
    limits: Limits | None = None


class Allocator(ABC):
    """Gives every layer its width under a budget, in one solve."""

    @abstractmethod
    def check(self, context: AllocationContext | None) -> Problem:
        """Checks the settings and budgets against a study, before a loss is measured; returns the problem with losses of 0.

        Raises:
            ConfigError: The settings do not fit the study.
            InfeasibleBudgetError: No allocation keeps the budgets; the message names the least possible.
        """

    @abstractmethod
    def problem(self, context: AllocationContext | None) -> Problem:
        """Returns the problem of a study: a unit for each knob, named by its path.

        Args:
            context: The study's layers; None outside of a study of Paredown.

        Raises:
            ConfigError: The settings do not fit the study.
        """

    @abstractmethod
    def solutions(self, problem: Problem) -> Sequence[Solution]:
        """Returns allocations that are worth a real evaluation, cheapest first.

        Args:
            problem: The problem, possibly with corrected losses.

        Raises:
            InfeasibleBudgetError: No allocation keeps the budgets.
        """

    @abstractmethod
    def explanation(self, problem: Problem, context: AllocationContext | None) -> dict[str, Any]:
        """Returns what led to the solutions, for the report.

        Args:
            problem: The problem as it was before any correction.
            context: As for `problem`.

        Returns:
            JSON-able: `sensitivity` (name of the losses); `units`, by path its `layers`, `n_weights` and `losses` by width;
            `curve`, pairs of bits per weight and predicted loss, without the budgets; `budgets`, each with its `name`, `limit`
            and `bits` per weight of the allocation of least loss that keeps it, alone.
        """


class NoAllocator(Allocator):
    """No allocator: what samplers that need none are configured with."""

    def check(self, context: AllocationContext | None) -> Problem:
        """Raises ConfigError: a sampler needs an allocator."""
        raise ConfigError("sampler=allocator needs an allocator: add allocator=knapsack")

    def problem(self, context: AllocationContext | None) -> Problem:
        """Returns a problem without layers."""
        return Problem({})

    def solutions(self, problem: Problem) -> Sequence[Solution]:
        """Returns no solution."""
        return ()

    def explanation(self, problem: Problem, context: AllocationContext | None) -> dict[str, Any]:
        """Returns nothing."""
        return {}
