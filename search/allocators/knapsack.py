"""The allocator of exact fronts: least loss for every limit of a budget, by the multiple-choice knapsack."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from search.allocators.base import AllocationContext, Allocator, LayerKnob
from search.allocators.budgets import study_budgets, without_unknown
from search.allocators.front import front
from search.allocators.problem import Budget, Problem, Table, average_bits
from search.allocators.program import Solution, solve
from spaces.errors import ConfigError, unknown_name
from spaces.quantization.sensitivity.output_losses import check_sensitivity

GRID = {"scheme": "symmetric", "granularity": "channel", "clipping": "mse", "rounding": "auto"}
AVERAGE_BITS = "average_bits"
CURVE_POINTS = 33  # of the explanation


class Knapsack(Allocator):
    """Minimises the sum of the layers' losses for a sweep of one budget, exactly.

    In a study of Paredown losses and costs are measured: one layer and width at a time. In another Optuna study they are given.

    Args:
        knob: The knob whose values are widths, one per layer or group of layers.
        sensitivity: The loss: soft_kl or kl (of logits), sqnr, mse, or ssim (of images) of the output; fisher or hessian, which need a torch
            network and labels.
        n_examples: Calibration examples that it is measured on.
        average_bits: Least and most bits per weight; None allows all that is possible. The least one counts where the
            bits are swept.
        budgets: Upper limits, written as those of the objective are: name to `measure`, `device` and `max`.
        objective_limits: Whether limits of the objective become budgets, where they can.
        sweep: What is swept: `average_bits`, or the name of a budget.
        n_limits: Number of limits of the sweep.
        fixed: Pattern over the names of layers to the width that these keep.
        tied: Lists of patterns; all layers that match one of a list share a width.
        grid: Scheme, granularity, clipping and rounding of the weights while losses are measured; rounding is `nearest`, `gptq`, or `auto`:
            gptq if candidates round otherwise than to nearest.
        losses: Parameter to width to loss; None measures them.
        n_weights: Parameter to number of weights, with `losses`.
        given_budgets: Budgets by name, with `losses`.
    """

    def __init__(
        self,
        knob: str = "quantize.weight_bits",
        sensitivity: str = "soft_kl",
        n_examples: int = 128,
        average_bits: Sequence[float] | None = None,
        budgets: Mapping[str, Any] | None = None,
        objective_limits: bool = True,
        sweep: str = AVERAGE_BITS,
        n_limits: int = 12,
        fixed: Mapping[str, int] | None = None,
        tied: Sequence[Sequence[str]] = (),
        grid: Mapping[str, str] | None = None,
        losses: Table | None = None,
        n_weights: Mapping[str, int] | None = None,
        given_budgets: Mapping[str, Budget] | None = None,
    ) -> None:
        check_sensitivity(sensitivity)
        _check("n_examples", n_examples, n_examples >= 1, "at least 1")
        _check("n_limits", n_limits, n_limits >= 2, "at least 2")
        if average_bits is not None:
            good = len(average_bits) == 2 and 0 < average_bits[0] <= average_bits[1]
            _check("average_bits", list(average_bits), good, "[least, most], two numbers above 0")
        self._knob, self._sensitivity, self._n_examples = knob, sensitivity, n_examples
        self._range, self._sweep, self._n_limits = average_bits, sweep, n_limits
        self._rules, self._objective_limits = dict(budgets or {}), objective_limits
        self._fixed, self._tied = dict(fixed or {}), tuple(map(tuple, tied))
        self._grid = GRID | dict(grid or {})
        self._losses, self._n_weights = losses, n_weights
        self._found: Mapping[str, Budget] | None = given_budgets

    def check(self, context: AllocationContext | None) -> Problem:
        """Checks names and patterns, that losses can be measured, and that an allocation keeps the budgets; returns the problem with losses of 0.

        Raises:
            ConfigError: The knob has no value per layer, a pattern matches no layer, or a cost cannot be a budget.
            InfeasibleBudgetError: No allocation keeps the budgets.
        """
        nothing = {unit: dict.fromkeys(row, 0.0) for unit, row in self._widths(context).items()}
        posed = self._posed(nothing, context)
        solve(posed)
        return posed

    def problem(self, context: AllocationContext | None) -> Problem:
        """Returns the problem, with the budget that is swept as its last one."""
        return self._posed(self._measured(context), context)

    def solutions(self, problem: Problem) -> Sequence[Solution]:
        """Returns the front, one allocation at most for each limit."""
        *others, budget = problem.budgets
        found = front(replace(problem, budgets=others), budget, self._n_limits)
        if self._range is None or self._sweep != AVERAGE_BITS:
            return found
        kept = [s for s in found if s.costs[budget.name] >= self._range[0] * budget.per]
        return kept or found[-1:]

    def explanation(self, problem: Problem, context: AllocationContext | None) -> dict[str, Any]:
        """Returns losses, the curve of bits against loss, and where the budgets are on it."""
        layers, n_weights = self._layers(context), self._sizes(context)
        units = {
            unit: {"layers": list(layers[unit]), "n_weights": n_weights[unit], "losses": _finite(row)}
            for unit, row in problem.losses.items()
        }
        bits = self._bits(problem.losses, n_weights, None)
        curve = front(replace(problem, budgets=()), bits, CURVE_POINTS)
        free = bits.name if self._range is None else ""  # a limit that nobody set
        return {
            "sensitivity": self._sensitivity if self._losses is None else "",
            "units": units,
            "curve": [[solution.costs[bits.name] / bits.per, solution.loss] for solution in curve],
            "budgets": [
                {"name": b.name, "limit": b.limit / b.per, "bits": _bits_within(problem, b, bits)}
                for b in problem.budgets
                if b.name != free
            ],
        }

    def _posed(self, losses: Table, context: AllocationContext | None) -> Problem:
        """Returns the problem of losses; its costs are measured once."""
        layers = self._layers(context)
        fixed = {
            path: width for glob, width in self._fixed.items() for path in _matching(glob, layers, "fixed")
        }
        tied = [[path for glob in globs for path in _matching(glob, layers, "tied")] for globs in self._tied]
        free = Problem(losses, (), tied, fixed)
        bits = self._bits(losses, self._sizes(context), self._range)
        named = {AVERAGE_BITS: bits, **self._budgets(free, context)}
        if self._sweep not in named:
            raise ConfigError(unknown_name("budget", self._sweep, named, "allocator.sweep"))
        swept = named.pop(self._sweep)
        return without_unknown(replace(free, budgets=(*named.values(), swept)))

    def _budgets(self, free: Problem, context: AllocationContext | None) -> Mapping[str, Budget]:
        """Returns the budgets besides the average bits; those of a study are made once, from its costs."""
        if self._found is None and context is not None and context.limits is not None:
            self._found = study_budgets(self._rules, self._objective_limits, free, context.limits)
        return self._found or {}

    def _bits(self, losses: Table, n_weights: Mapping[str, int], limits: Sequence[float] | None) -> Budget:
        widths = {width for row in losses.values() for width in row}
        return average_bits(n_weights, widths, max(widths) if limits is None else limits[1])

    def _measured(self, context: AllocationContext | None) -> Table:
        """Returns the losses by knob: sums over its layers."""
        if self._losses is not None:
            return self._losses
        knobs = self._knobs(context)
        assert context is not None
        assert context.measure is not None  # checked by `_knobs`
        widths = {
            layer: sorted(set(knob.widths.values())) for knob in knobs.values() for layer in knob.layers
        }
        losses = context.measure(self._sensitivity, widths, self._n_examples, self._grid)
        return {
            path: {w: math.fsum(losses[layer][w] for layer in knob.layers) for w in knob.widths.values()}
            for path, knob in knobs.items()
        }

    def _widths(self, context: AllocationContext | None) -> Mapping[str, Collection[int]]:
        if self._losses is not None:
            return self._losses
        return {path: tuple(knob.widths.values()) for path, knob in self._knobs(context).items()}

    def _sizes(self, context: AllocationContext | None) -> Mapping[str, int]:
        """Returns the number of weights of each knob."""
        if self._losses is not None:
            return self._n_weights or dict.fromkeys(self._losses, 1)
        assert context is not None
        return {
            path: sum(context.n_weights[layer] for layer in layers)
            for path, layers in self._layers(context).items()
        }

    def _layers(self, context: AllocationContext | None) -> dict[str, tuple[str, ...]]:
        """Returns the layers of each knob."""
        if self._losses is not None:
            return {name: (name,) for name in self._losses}
        return {path: knob.layers for path, knob in self._knobs(context).items()}

    def _knobs(self, context: AllocationContext | None) -> dict[str, LayerKnob]:
        """Returns the knobs that are allocated."""
        if context is None or context.measure is None:
            raise ConfigError(
                "allocator: losses can be measured in a study whose first stage quantizes a float ONNX network; elsewhere give `losses`"
            )
        found = {path: knob for path, knob in context.knobs.items() if path.split("[", 1)[0] == self._knob}
        if not found:
            others = sorted({path.split("[", 1)[0] for path in context.knobs})
            hint = (
                f"per layer are: {', '.join(others)}"
                if others
                else f"give space.{self._knob} `per: layer` or `groups`"
            )
            raise ConfigError(f"allocator.knob={self._knob} has no value per layer in this space; {hint}")
        return found


def _matching(glob: str, layers: Mapping[str, Iterable[str]], key: str) -> list[str]:
    """Returns the knobs with a layer that a pattern matches."""
    found = [path for path, names in layers.items() if any(n == glob or fnmatchcase(n, glob) for n in names)]
    if not found:
        names = [n for group in layers.values() for n in group]
        raise ConfigError(unknown_name("layer pattern", glob, names, f"allocator.{key}"))
    return found


def _check(name: str, value: object, good: bool, allowed: str) -> None:
    if not good:
        raise ConfigError(f"allocator.{name} must be {allowed}, not {value!r}")


def _finite(row: Mapping[int, float]) -> dict[int, float]:
    return {width: loss for width, loss in row.items() if loss < math.inf}


def _bits_within(problem: Problem, budget: Budget, bits: Budget) -> float:
    """Returns the bits per weight of the allocation of least loss that keeps one budget."""
    return bits.cost(solve(replace(problem, budgets=(budget,))).widths) / bits.per
