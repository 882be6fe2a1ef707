"""What an allocator is, and what a study tells it about the layers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from search.allocators.problem import Problem, Table
from search.allocators.program import Solution
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


@dataclass(frozen=True)
class LayerFigures:
    """What was measured of the layers.

    Attributes:
        losses: Layer to width in bits to the loss of the output with only that layer at that width.
        n_weights: Layer to its number of weights.
    """

    losses: Table
    n_weights: Mapping[str, int]


class Measure(Protocol):
    """Measures the layers where trials run."""

    def __call__(
        self, sensitivity: str, widths: Mapping[str, Sequence[int]], n_examples: int, grid: Mapping[str, str]
    ) -> LayerFigures:
        """Returns the losses of layers.

        Args:
            sensitivity: Name of the loss.
            widths: Layer to widths in bits.
            n_examples: Calibration examples.
            grid: `scheme`, `granularity` and `clipping` of the weights' grids.

        Raises:
            ParedownError: The losses cannot be measured.
        """


@dataclass(frozen=True)
class AllocationContext:
    """What a study tells its allocator.

    Attributes:
        knobs: Path to knob, for every knob that belongs to layers and has numbers of bits as values.
        measure: Measures the layers; None where only given losses can be used.
    """

    knobs: Mapping[str, LayerKnob]
    measure: Measure | None = None


class Allocator(ABC):
    """Gives every layer its width under a budget, in one solve."""

    @abstractmethod
    def check(self, context: AllocationContext | None) -> None:
        """Checks the settings against a study, before anything is measured.

        Raises:
            ConfigError: The settings do not fit the study.
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


class NoAllocator(Allocator):
    """No allocator: what samplers that need none are configured with."""

    def check(self, context: AllocationContext | None) -> None:
        """Raises ConfigError: a sampler needs an allocator."""
        raise ConfigError("sampler=allocator needs an allocator: add allocator=knapsack")

    def problem(self, context: AllocationContext | None) -> Problem:
        """Returns a problem without layers."""
        return Problem({})

    def solutions(self, problem: Problem) -> Sequence[Solution]:
        """Returns no solution."""
        return ()
