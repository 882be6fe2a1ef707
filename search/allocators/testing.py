"""Conformance tests that every allocator must pass. Needs pytest.

A new allocator's test::

    class TestMyAllocator(AllocatorConformance):
        @pytest.fixture
        def allocator(self):
            return MyAllocator()

The fixture `allocator` returns an allocator that takes the losses of the study in `context`: four layers of widths 2, 4 and 8.
"""

import json
import pickle

import pytest

from search.allocators.base import AllocationContext, Allocator, LayerKnob, Limits
from search.allocators.problem import Table
from spaces.errors import ConfigError

WIDTHS = (2, 4, 8)
N_WEIGHTS = {"stem": 100, "middle": 3000, "late": 500, "head": 40}


def layer_context(measured: list[str] | None = None, limits: Limits | None = None) -> AllocationContext:
    """Returns four layers, `late` and `head` with a common knob.

    Args:
        measured: Gets the sensitivity of each measurement.
        limits: Costs and limits.
    """

    def measure(sensitivity: str, widths: object, n_examples: int, grid: object) -> Table:
        if measured is not None:
            measured.append(sensitivity)
        return {layer: {w: 4.0**-w * (1 + i) for w in WIDTHS} for i, layer in enumerate(N_WEIGHTS)}

    groups = {"stem": ("stem",), "middle": ("middle",), "end": ("late", "head")}
    values = {str(w): w for w in WIDTHS}
    knobs = {f"quantize.weight_bits[{name}]": LayerKnob(layers, values) for name, layers in groups.items()}
    return AllocationContext(knobs, measure, N_WEIGHTS, limits)


class AllocatorConformance:
    """Tests of what a sampler requires of an allocator."""

    @pytest.fixture
    def allocator(self) -> Allocator:
        """Returns the allocator."""
        raise NotImplementedError("a conformance test must define the fixture `allocator`")

    def test_solutions_are_allowed_and_rise_in_cost(self, allocator: Allocator) -> None:
        """Every unit has an allowed width, all budgets are kept, and a dearer solution has a lower loss."""
        context = layer_context()
        allocator.check(context)
        problem = allocator.problem(context)
        assert set(problem.losses) == set(context.knobs)
        found = allocator.solutions(problem)
        assert found
        for solution in found:
            assert all(width in problem.losses[unit] for unit, width in solution.widths.items())
            assert all(budget.cost(solution.widths) <= budget.limit for budget in problem.budgets)
        name = problem.budgets[-1].name
        costs, losses = [s.costs[name] for s in found], [s.loss for s in found]
        assert costs == sorted(costs)
        assert losses == sorted(losses, reverse=True)

    def test_the_check_measures_nothing(self, allocator: Allocator) -> None:
        """Settings are checked before any work."""
        measured: list[str] = []
        allocator.check(layer_context(measured))
        assert measured == []

    def test_the_explanation_is_plain_data_of_every_unit(self, allocator: Allocator) -> None:
        """Losses and the curve, which falls; the report is written from its JSON."""
        context = layer_context()
        found = json.loads(json.dumps(allocator.explanation(allocator.problem(context), context)))
        assert set(found["units"]) == set(context.knobs)
        assert {layer for unit in found["units"].values() for layer in unit["layers"]} == set(N_WEIGHTS)
        bits, losses = zip(*found["curve"], strict=True)
        assert list(bits) == sorted(bits)
        assert list(losses) == sorted(losses, reverse=True)

    def test_without_layers_the_error_says_so(self, allocator: Allocator) -> None:
        """A study without knobs per layer is refused."""
        with pytest.raises(ConfigError, match="per layer"):
            allocator.check(AllocationContext({}, layer_context().measure))

    def test_the_same_problem_gives_the_same_solutions(self, allocator: Allocator) -> None:
        """Solutions are deterministic, so that a resumed study goes on with the same front; also those of a pickled copy."""
        copy = pickle.loads(pickle.dumps(allocator))  # noqa: S301  # our own bytes
        one, other = (a.solutions(a.problem(layer_context())) for a in (allocator, copy))
        assert [s.widths for s in one] == [s.widths for s in other]
