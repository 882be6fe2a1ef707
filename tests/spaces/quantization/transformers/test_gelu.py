"""ShiftGELU against integers of numpy bit by bit, and against the float function."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.quantization.transformers.gelu import STEPS, attributes
from spaces.quantization.transformers.shift_exp import Unit
from tests.spaces.quantization.transformers.conftest import shifted_power


def shift_gelu(q, scale):
    unit = Unit.of(scale)
    a = np.abs(q) * unit.up // unit.down
    e = shifted_power(a + (a >> 1) + (a >> 3) + (a >> 4), unit.one)
    full = unit.one << 5
    sigmoid = (np.where(q < 0, e, full) << 15) // (e + full)
    return (q * sigmoid).astype(np.float32) * np.float32(scale / 2**15)


def gelu(x):
    return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def numpys(x, low, high, limit):
    made = attributes(low, high, limit)
    steps = np.round(x / np.float32(made["scale"]))
    return shift_gelu(np.clip(steps, made["first"], made["last"]).astype(np.int64), made["scale"])


@pytest.mark.parametrize("opset", [13, 21])
@pytest.mark.parametrize("spread", [1e-2, 1.0, 20.0])
@pytest.mark.parametrize("limit", [0.0, 3.0])
def test_it_is_that_of_numpys_integers_bit_by_bit(computed, opset, spread, limit):
    x = (np.random.default_rng(0).standard_normal((3, 70)) * spread).astype(np.float32)
    low, high = float(x.min()), float(x.max())
    got = computed("Gelu", x, attributes(low, high, limit), opset=opset)
    np.testing.assert_array_equal(got, numpys(x, low, high, limit))


@given(q=st.integers(-STEPS, STEPS), scale=st.floats(2.0**-20, 0.5))
def test_its_distance_from_the_float_function_of_the_same_integer(q, scale):
    got, wanted = shift_gelu(np.array([q]), scale)[0], gelu(np.array([q * scale]))[0]
    assert abs(got - wanted) <= 0.026 + abs(q) * scale * 2.0**-13


@given(x=st.floats(-100, 100, width=32), limit=st.floats(0.5, 8))
def test_a_limit_is_the_function_of_the_clipped_value(x, limit):
    values = np.array([x], np.float32)
    clipped = np.clip(values, -np.float32(limit), np.float32(limit))
    got, wanted = (numpys(each, -100.0, 100.0, limit) for each in (values, clipped))
    np.testing.assert_allclose(
        got, wanted, atol=1.2 * 2 * limit / STEPS
    )  # the limit lies within a step of the grid's end


@given(low=st.floats(-6, 0), high=st.floats(0.1, 6))
def test_a_limit_beyond_the_range_changes_nothing(low, high):
    assert attributes(low, high, 6.0) == attributes(low, high, 0.0)


def test_a_limit_makes_the_steps_of_a_long_tail_finer():
    x = np.concatenate([np.random.default_rng(0).standard_normal(2000), [60.0]]).astype(np.float32)
    errors = [
        np.mean((numpys(x, float(x.min()), 60.0, limit) - gelu(x.astype(np.float64)))[:-1] ** 2)
        for limit in (0.0, 4.0)
    ]
    assert errors[1] < errors[0]
