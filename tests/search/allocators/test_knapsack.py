"""The allocator of exact fronts."""

import pytest

from search.allocators.base import AllocationContext, NoAllocator
from search.allocators.knapsack import Knapsack
from search.allocators.testing import AllocatorConformance, layer_context
from spaces.errors import ConfigError


class TestKnapsack(AllocatorConformance):
    @pytest.fixture
    def allocator(self):
        return Knapsack()


def bits(solution, sizes={"stem": 100, "middle": 3000, "end": 540}):  # noqa: B006
    return sum(sizes[path.split("[")[1][:-1]] * w for path, w in solution.widths.items()) / sum(
        sizes.values()
    )


def test_a_knob_of_several_layers_has_the_sum_of_their_losses():
    problem = Knapsack().problem(layer_context())
    assert problem.losses["quantize.weight_bits[end]"][4] == pytest.approx(4.0**-4 * (3 + 4))
    assert problem.budgets[-1].costs["quantize.weight_bits[end]"][4] == 4 * 540


def test_average_bits_limit_the_sweep():
    allocator = Knapsack(average_bits=[3.5, 5.0], n_limits=30)
    found = allocator.solutions(allocator.problem(layer_context()))
    assert all(3.5 <= bits(s) <= 5.0 for s in found)


def test_fixed_and_tied_layers():
    allocator = Knapsack(fixed={"ste*": 8}, tied=[["middle", "late"]], n_limits=20)
    for solution in allocator.solutions(allocator.problem(layer_context())):
        widths = {path.split("[")[1][:-1]: w for path, w in solution.widths.items()}
        assert widths["stem"] == 8
        assert widths["middle"] == widths["end"]


def test_the_least_possible_average_is_named():
    allocator = Knapsack(average_bits=[1.0, 1.5])
    with pytest.raises(
        ConfigError, match=r"1.5 bits per weight is too small: the least possible is 2 bits per weight"
    ):
        allocator.solutions(allocator.problem(layer_context()))


def solved(settings):
    allocator = Knapsack(**settings)
    allocator.check(layer_context())
    return allocator.solutions(allocator.problem(layer_context()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sensitivity": "magic"}, "Unknown sensitivity 'magic' in allocator.sensitivity"),
        ({"n_examples": 0}, "allocator.n_examples must be at least 1"),
        ({"n_limits": 1}, "allocator.n_limits must be at least 2"),
        ({"average_bits": [5, 3]}, r"allocator.average_bits must be \[least, most\]"),
        ({"fixed": {"conv*": 8}}, r"Unknown layer pattern 'conv\*' in allocator.fixed"),
        ({"tied": [["stem", "x"]]}, "Unknown layer pattern 'x' in allocator.tied"),
        ({"fixed": {"stem": 3}}, "no width is allowed"),
        (
            {"knob": "prune.ratio"},
            "allocator.knob=prune.ratio has no value per layer in this space; per layer are: quantize.weight_bits",
        ),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        solved(settings)


def test_losses_must_be_measured_or_given():
    with pytest.raises(ConfigError, match="give `losses`"):
        Knapsack().check(AllocationContext(layer_context().knobs))
    given = Knapsack(losses={"a": {4: 1.0, 8: 0.0}}, n_weights={"a": 10})
    given.check(None)
    assert [s.widths for s in given.solutions(given.problem(None))] == [{"a": 4}, {"a": 8}]


def test_no_allocator_is_refused():
    with pytest.raises(ConfigError, match="add allocator=knapsack"):
        NoAllocator().check(None)
