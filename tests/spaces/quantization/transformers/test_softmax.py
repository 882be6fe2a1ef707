"""Shiftmax against integers of numpy bit by bit, and against the float function."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.quantization.transformers.shift_exp import EXP_BITS, SMALLEST, Unit
from spaces.quantization.transformers.softmax import STEPS, attributes, grid
from tests.spaces.quantization.transformers.conftest import shifted_power


def quantized(x, start, scale):
    steps = np.round((x - np.float32(start)) / np.float32(scale))
    return np.clip(steps, 0, STEPS).astype(np.int64)


def shiftmax(q, scale):
    """The last axis of integers of a scale."""
    unit = Unit.of(scale)
    a = (q.max(-1, keepdims=True) - q) * unit.up // unit.down
    e = shifted_power(a, unit.one)
    return ((e << 15) // e.sum(-1, keepdims=True)).astype(np.float32) * np.float32(2**-15)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize("spread", [1e-3, 1.0, 30.0])
def test_it_is_that_of_numpys_integers_bit_by_bit(computed, opset, spread):
    x = (np.random.default_rng(0).standard_normal((2, 3, 50)) * spread).astype(np.float32)
    start, scale = grid(float(x.min()), float(x.max()), float(x.max(-1).min()))
    got = computed("Softmax", x, attributes(start, scale, (-1,)), opset=opset)
    np.testing.assert_array_equal(got, shiftmax(quantized(x, start, scale), scale))


def test_another_axis(computed):
    x = np.random.default_rng(1).standard_normal((2, 9, 4)).astype(np.float32)
    start, scale = grid(-4.0, 4.0, 0.0)
    got = computed("Softmax", x, attributes(start, scale, (1,)))
    wanted = shiftmax(np.swapaxes(quantized(x, start, scale), 1, 2), scale)
    np.testing.assert_array_equal(got, np.swapaxes(wanted, 1, 2))


@given(
    q=st.lists(st.integers(0, STEPS), min_size=1, max_size=60),
    scale=st.floats(2.0**-20, 0.5),
)
def test_its_distance_from_the_float_function_of_the_same_integers(q, scale):
    q = np.array(q)
    wanted, got = softmax(q * scale), shiftmax(q, scale)
    assert (np.abs(got - wanted) <= 0.11 * wanted * (1 - wanted) + 0.004 * wanted + 2.0**-13).all()


@given(scale=st.floats(2.0**-20, 16.0), q=st.integers(0, STEPS))
def test_a_power_of_e_by_shifts(scale, q):
    unit = Unit.of(scale)
    assert 2**10 <= unit.one <= 2**11
    a = q * unit.up // unit.down
    got, wanted = shifted_power(a, unit.one) / (unit.one << 5), np.exp(-q * scale)
    assert got.max() <= 1
    assert 0 <= unit.one << 5 <= 2**EXP_BITS
    assert -(2.0**-14) - 0.01 * wanted <= got - wanted <= 0.11 * wanted + 2.0**-14


@pytest.mark.parametrize("mask", [-np.inf, -1e4, np.finfo(np.float32).min])
def test_a_mask_becomes_zero(computed, mask):
    x = np.random.default_rng(2).standard_normal((1, 6, 6)).astype(np.float32)
    masked = np.where(np.triu(np.ones((6, 6)), 1), np.float32(mask), x).astype(np.float32)
    start, scale = grid(float(masked.min()), float(masked.max()), float(masked.max(-1).min()))
    got = computed("Softmax", masked, attributes(start, scale, (-1,)))[0]
    assert (got[np.triu(np.ones((6, 6)), 1) > 0] == 0).all()
    np.testing.assert_allclose(got.sum(-1), 1, atol=6 * 2.0**-15)
    assert scale <= (x.max() - x.min() + 2 * SMALLEST) / STEPS
