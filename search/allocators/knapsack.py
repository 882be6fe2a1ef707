"""The allocator of exact fronts: least loss for every average width, by the multiple-choice knapsack."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from search.allocators.base import AllocationContext, Allocator, LayerFigures, LayerKnob
from search.allocators.front import front
from search.allocators.problem import Budget, Problem, Table, average_bits
from search.allocators.program import Solution
from spaces.errors import ConfigError, unknown_name
from spaces.quantization.sensitivity.output_losses import check_sensitivity

GRID = {"scheme": "symmetric", "granularity": "channel", "clipping": "mse"}


class Knapsack(Allocator):
    """Minimises the sum of the layers' losses for a sweep of average widths, exactly.

    In a study of Paredown the losses are measured: one layer and width at a time. In another Optuna study they are given.

    Args:
        knob: The knob whose values are widths, one per layer or group of layers.
        sensitivity: The loss: kl (of logits), sqnr, mse, or ssim (of images) of the output; fisher or hessian, which need a torch
            network and labels.
        n_examples: Calibration examples that it is measured on.
        average_bits: Least and most bits per weight of the sweep; None sweeps from the least to the most possible.
        n_limits: Number of limits of the sweep.
        fixed: Pattern over the names of layers to the width that these keep.
        tied: Lists of patterns; all layers that match one of a list share a width.
        grid: Scheme, granularity and clipping of the weights while losses are measured.
        losses: Parameter to width to loss; None measures them.
        n_weights: Parameter to number of weights, with `losses`.
        budgets: Further budgets, with `losses`.
    """

    def __init__(
        self,
        knob: str = "quantize.weight_bits",
        sensitivity: str = "kl",
        n_examples: int = 128,
        average_bits: Sequence[float] | None = None,
        n_limits: int = 12,
        fixed: Mapping[str, int] | None = None,
        tied: Sequence[Sequence[str]] = (),
        grid: Mapping[str, str] | None = None,
        losses: Table | None = None,
        n_weights: Mapping[str, int] | None = None,
        budgets: Sequence[Budget] = (),
    ) -> None:
        check_sensitivity(sensitivity)
        _check("n_examples", n_examples, n_examples >= 1, "at least 1")
        _check("n_limits", n_limits, n_limits >= 2, "at least 2")
        if average_bits is not None:
            good = len(average_bits) == 2 and 0 < average_bits[0] <= average_bits[1]
            _check("average_bits", list(average_bits), good, "[least, most], two numbers above 0")
        self._knob, self._sensitivity, self._n_examples = knob, sensitivity, n_examples
        self._range, self._n_limits = average_bits, n_limits
        self._fixed, self._tied = dict(fixed or {}), tuple(map(tuple, tied))
        self._grid = GRID | dict(grid or {})
        self._losses, self._n_weights, self._budgets = losses, n_weights, tuple(budgets)

    def check(self, context: AllocationContext | None) -> None:
        """Checks names and patterns, and that losses can be measured.

        Raises:
            ConfigError: The knob has no value per layer, or a pattern matches no layer.
        """
        layers = self._layers(context)
        for glob in (*self._fixed, *(glob for globs in self._tied for glob in globs)):
            _matching(glob, layers, "fixed" if glob in self._fixed else "tied")

    def problem(self, context: AllocationContext | None) -> Problem:
        """Returns the problem, with the budget of the largest average width as its last one."""
        losses, n_weights = self._figures(context)
        layers = self._layers(context)
        widths = {width for row in losses.values() for width in row}
        budget = average_bits(n_weights, widths, max(widths) if self._range is None else self._range[1])
        fixed = {
            path: width for glob, width in self._fixed.items() for path in _matching(glob, layers, "fixed")
        }
        tied = [[path for glob in globs for path in _matching(glob, layers, "tied")] for globs in self._tied]
        return Problem(losses, (*self._budgets, budget), tied, fixed)

    def solutions(self, problem: Problem) -> Sequence[Solution]:
        """Returns the front, one allocation at most for each limit."""
        *others, budget = problem.budgets
        found = front(replace(problem, budgets=others), budget, self._n_limits)
        if self._range is None:
            return found
        weights = sum(next(iter(row.values())) / next(iter(row)) for row in budget.costs.values())
        kept = [s for s in found if s.costs[budget.name] >= self._range[0] * weights]
        return kept or found[-1:]

    def _figures(self, context: AllocationContext | None) -> tuple[Table, Mapping[str, int]]:
        """Returns losses and numbers of weights by knob, given or measured."""
        if self._losses is not None:
            return self._losses, self._n_weights or dict.fromkeys(self._losses, 1)
        knobs = self._knobs(context)
        assert context is not None
        assert context.measure is not None  # checked by `_knobs`
        widths = {
            layer: sorted(set(knob.widths.values())) for knob in knobs.values() for layer in knob.layers
        }
        return _by_knob(knobs, context.measure(self._sensitivity, widths, self._n_examples, self._grid))

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


def _by_knob(knobs: Mapping[str, LayerKnob], figures: LayerFigures) -> tuple[Table, Mapping[str, int]]:
    """Returns losses and numbers of weights of each knob: sums over its layers."""
    losses = {
        path: {w: math.fsum(figures.losses[layer][w] for layer in knob.layers) for w in knob.widths.values()}
        for path, knob in knobs.items()
    }
    return losses, {
        path: sum(figures.n_weights[layer] for layer in knob.layers) for path, knob in knobs.items()
    }


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
