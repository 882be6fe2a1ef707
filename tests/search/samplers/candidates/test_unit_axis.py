import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search.samplers.candidates.unit_axis import UnitAxis, is_ordered

KINDS = [
    FloatDistribution(-1.0, 3.0),
    FloatDistribution(1e-5, 1e-1, log=True),
    FloatDistribution(0.1, 0.9, step=0.1),
    IntDistribution(3, 9),
    IntDistribution(2, 10, step=4),
    IntDistribution(1, 1000, log=True),
    CategoricalDistribution([2, 4, 8, 16]),
    CategoricalDistribution([0.5, 1]),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@given(place=st.floats(0, 1, exclude_max=True))
def test_values_and_positions_round_trip(kind, place):
    axis = UnitAxis(kind)
    value = axis.value(place)
    assert kind._contains(kind.to_internal_repr(value))
    assert 0 <= axis.position(value) < 1
    again = axis.value(axis.position(value))
    assert again == pytest.approx(value, rel=1e-9)
    assert type(again) is type(value)
    if axis.n_cells is not None:
        assert int(place * axis.n_cells) == int(axis.position(value) * axis.n_cells)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_values_ascend_and_reach_both_ends(kind):
    axis = UnitAxis(kind)
    values = [axis.value(i / 1000) for i in range(1000)]
    assert values == sorted(values)
    ends = (
        (min(kind.choices), max(kind.choices))
        if isinstance(kind, CategoricalDistribution)
        else (kind.low, kind.high)
    )
    assert (values[0], values[-1]) == pytest.approx(ends, rel=0.01, abs=0.01)


def test_values_outside_the_domain_have_no_position():
    assert math.isnan(UnitAxis(KINDS[0]).position(3.5))
    assert math.isnan(UnitAxis(KINDS[0]).position(True))
    assert math.isnan(UnitAxis(KINDS[3]).position("3"))
    assert math.isnan(UnitAxis(KINDS[6]).position(4.0))
    assert UnitAxis(KINDS[6]).position(4) == 0.375


def test_knobs_with_an_order():
    assert all(map(is_ordered, KINDS))
    unordered = [
        CategoricalDistribution(["a", "b"]), CategoricalDistribution([4, 2]), CategoricalDistribution([False, True]),
        CategoricalDistribution([1, None]), CategoricalDistribution([3]), IntDistribution(3, 3), FloatDistribution(1, 1),
    ]  # fmt: skip
    assert not any(map(is_ordered, unordered))
