"""Budgets of a study: its own limits and those of its objective."""

import math

import pytest

from search.allocators.knapsack import Knapsack
from search.allocators.program import InfeasibleBudgetError
from search.allocators.testing import N_WEIGHTS, layer_context
from search.record.results import Constraint
from spaces.errors import ConfigError

OF_UNIT = {
    "stem": N_WEIGHTS["stem"],
    "middle": N_WEIGHTS["middle"],
    "end": N_WEIGHTS["late"] + N_WEIGHTS["head"],
}
BYTES, MS, UJ, PEAK = (
    "metric.packed_bytes",
    "cost.chip.latency_ms",
    "cost.dsp.energy_uj",
    "cost.chip.peak_sram_bytes",
)
HEADER = 100


def unit_of(path):
    return path.split("[")[1][:-1]


class FakeLimits:
    """A study whose costs are known: bytes, a latency where there is none below 4 bits, an energy, and a peak."""

    def __init__(self, constraints=(), saved=0.0):
        self.constraints, self.saved, self.n_asked = tuple(constraints), saved, 0

    def savings(self, allocation, column):
        return self.saved

    def read(self, rules, where):
        return [Constraint(name, *rule) for name, rule in rules.items()]

    def known(self, allocations):
        self.n_asked += 1
        return [self.costs({unit_of(path): w for path, w in a.items()}) for a in allocations]

    def costs(self, widths):
        bits = {unit: OF_UNIT[unit] * w for unit, w in widths.items()}
        row = {
            BYTES: HEADER + sum(bits.values()) / 8,
            UJ: 5.0 + sum(bits.values()) / 100,
            PEAK: 1000.0 * max(widths.values()),
        }
        return row if min(widths.values()) < 4 else {**row, MS: 1.0 + sum(bits.values()) / 1000}


def solved(limits, **settings):
    allocator, context = Knapsack(n_limits=20, **settings), layer_context(limits=limits)
    allocator.check(context)
    problem = allocator.problem(context)
    return problem, [{unit_of(p): w for p, w in s.widths.items()} for s in allocator.solutions(problem)]


def test_budgets_on_several_devices_are_kept_together():
    limits = FakeLimits()
    rules = {"size": (BYTES, "max", 2600), "time": (MS, "max", 20), "energy": (UJ, "max", 200)}
    _, found = solved(limits, budgets=rules)
    assert found
    for widths in found:
        row = limits.costs(widths)
        assert row[BYTES] <= 2600
        assert row[MS] <= 20  # and so there is none below 4 bits
        assert row[UJ] <= 200


def test_costs_are_asked_for_once():
    limits = FakeLimits()
    solved(limits, budgets={"size": (BYTES, "max", 3000)})
    assert limits.n_asked == 2  # uniform allocations, then all others
    solved(limits := FakeLimits())
    assert limits.n_asked == 0
    solved(limits := FakeLimits([Constraint("drop", "metric.top1_drop", "max", 1.0)]))
    assert limits.n_asked == 1  # only trials know it


def test_limits_of_the_objective_become_budgets_where_they_can():
    constraints = [
        Constraint("drop", "metric.top1_drop", "max", 1.0),
        Constraint("peak", PEAK, "max", 9000.0),
        Constraint("least", BYTES, "min", 10.0),
        Constraint("size", BYTES, "max", 2600.0, margin=600.0),
    ]
    problem, found = solved(FakeLimits(constraints))
    assert [b.name for b in problem.budgets] == ["packed_bytes", "bits per weight"]
    assert all(FakeLimits().costs(widths)[BYTES] <= 2000 for widths in found)
    problem, _ = solved(FakeLimits(constraints), objective_limits=False)
    assert [b.name for b in problem.budgets] == ["bits per weight"]


def test_below_the_smallest_model_the_least_possible_is_named_before_anything_is_measured():
    measured = []
    least = HEADER + 2 * sum(OF_UNIT.values()) / 8
    context = layer_context(measured, FakeLimits([Constraint("size", BYTES, "max", 500.0)]))
    with pytest.raises(
        InfeasibleBudgetError, match=f"500 packed_bytes is too small: the least possible is {least:g}"
    ):
        Knapsack().check(context)
    with pytest.raises(
        InfeasibleBudgetError, match=r"1\.5 bits per weight .* the least possible is 2 bits per weight"
    ):
        Knapsack(average_bits=[1, 1.5]).check(layer_context(measured))
    with pytest.raises(InfeasibleBudgetError, match="latency_ms on chip is too small"):
        Knapsack(budgets={"time": (MS, "max", 1.0)}).check(layer_context(measured, FakeLimits()))
    assert measured == []


@pytest.mark.parametrize(("saved", "names"), [(600.0, ["bits per weight"]), (0.0, []), (400.0, [])])
def test_a_limit_that_other_knobs_may_keep_is_left_to_the_trials(saved, names):
    limits = FakeLimits([Constraint("size", BYTES, "max", 500.0)], saved=saved)  # the least is 1010
    if names:
        problem, _ = solved(limits)
        assert [b.name for b in problem.budgets] == names
    else:
        with pytest.raises(InfeasibleBudgetError, match="the least possible is 1010 packed_bytes"):
            solved(limits)


def test_a_budget_can_be_swept():
    problem, found = solved(FakeLimits(), budgets={"size": (BYTES, "max", 2600)}, sweep="size")
    assert problem.budgets[-1].name == "packed_bytes"
    sizes = [FakeLimits().costs(widths)[BYTES] for widths in found]
    assert sizes == sorted(sizes)
    assert len(sizes) > 2
    assert max(sizes) <= 2600


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"budgets": {"p": (PEAK, "max", 9000)}},
            r"allocator\.budgets\.p: peak_sram_bytes on chip cannot .* no sum",
        ),
        (
            {"budgets": {"t": ("cost.host.latency_ms", "max", 9)}},
            r"latency_ms on host cannot .* known only after a trial",
        ),
        ({"budgets": {"s": (BYTES, "min", 9)}}, r"allocator\.budgets\.s: a budget is an upper limit"),
        ({"sweep": "sise"}, r"Unknown budget 'sise' in allocator\.sweep"),
        (
            {"budgets": {"t": (MS, "max", 99)}, "fixed": {"stem": 2}},
            "latency_ms on chip cannot .* the device takes none of the widths",
        ),
    ],
)
def test_wrong_budgets(settings, message):
    with pytest.raises(ConfigError, match=message):
        solved(FakeLimits(), **settings)


def test_the_explanation_marks_budgets_on_the_curve_without_them():
    context = layer_context(limits=FakeLimits())
    allocator = Knapsack(budgets={"size": (BYTES, "max", 2000)}, average_bits=[2, 5])
    found = allocator.explanation(allocator.problem(context), context)
    assert found["curve"][0][0] == 2
    assert found["curve"][-1][0] == 8
    size, bits = found["budgets"]
    assert (size["name"], size["limit"], bits["limit"]) == ("packed_bytes", 2000, 5)
    assert size["bits"] <= (2000 - HEADER) * 8 / sum(OF_UNIT.values())
    assert bits["bits"] <= 5
    assert math.isfinite(found["units"]["quantize.weight_bits[stem]"]["losses"][2])
