"""Costs of layers from those of candidates: exact where they add up, refused where they do not."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.allocators.costs import ABSENT, layer_costs

WIDTHS = (2, 4, 8)
OPTIONS = {"a": WIDTHS, "b": WIDTHS, "c": (4,), "d": (4, 8)}
SIZES = {"a": 10, "b": 300, "c": 50, "d": 7}


def all_allocations():
    return [dict(zip(OPTIONS, widths, strict=True)) for widths in product(*OPTIONS.values())]


def costs_of(function, columns=("x",), options=OPTIONS):
    """Returns the costs where a candidate has those that `function` gives for it; a function may return None."""
    return layer_costs(options, columns, lambda allocations: [function(a) for a in allocations])


def total(table, allocation):
    return sum(table[unit][width] for unit, width in allocation.items())


@given(st.dictionaries(st.sampled_from(WIDTHS), st.integers(0, 10**6), min_size=3), st.integers(0, 10**6))
def test_sums_over_layers_are_found_exactly(by_width, constant):
    def cost(allocation):
        return constant + sum(SIZES[unit] * by_width[w] for unit, w in allocation.items())

    table = costs_of(lambda a: {"x": float(cost(a))}).tables["x"]
    assert all(total(table, a) == cost(a) for a in all_allocations())
    assert all(set(table[unit]) == set(widths) for unit, widths in OPTIONS.items())


def test_a_little_more_for_the_first_layer_of_a_kind_is_never_missing():
    def cost(allocation):
        narrow = any(width < 8 for width in allocation.values())
        return 20_000 + sum(SIZES[unit] * w for unit, w in allocation.items()) + 24 * narrow

    table = costs_of(lambda a: {"x": float(cost(a))}).tables["x"]
    assert all(cost(a) <= total(table, a) <= cost(a) + 30 for a in all_allocations())


def test_a_peak_is_no_sum():
    found = costs_of(lambda a: {"x": 1000.0 * max(a.values())})
    assert not found.tables
    assert "no sum over layers: an allocation has" in found.reasons["x"]


def test_widths_that_a_device_does_not_take_cost_infinitely_much():
    def row(allocation):
        taken = all(w > 2 for w in allocation.values())
        return {"bytes": 1.0 * sum(allocation.values()), **({"ms": 5.0 + allocation["b"]} if taken else {})}

    tables = costs_of(row, ("bytes", "ms")).tables
    assert tables["ms"]["a"][2] == tables["ms"]["b"][2] == float("inf")
    assert tables["ms"]["b"][8] - tables["ms"]["b"][4] == 4
    assert tables["bytes"]["a"][2] < float("inf")


def test_a_cost_that_no_candidate_has_is_absent():
    assert costs_of(lambda a: {}).reasons == {"x": ABSENT}


def test_single_options_and_no_difference():
    found = costs_of(lambda a: {"x": 3.0}, options={"a": (8,)})
    assert found.tables["x"] == {"a": {8: pytest.approx(3.0)}}
