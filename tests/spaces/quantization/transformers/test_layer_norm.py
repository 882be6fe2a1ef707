"""Integer layer normalization against integers of Python bit by bit, and against the float function."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spaces.quantization.transformers.layer_norm import NEWTON_STEPS, STEPS, attributes, parameters


def truncated(a, b):
    """Division of integers as in C: towards 0."""
    return np.sign(a) * (np.abs(a) // b)


def quantized(x, made):
    steps = np.round((x - np.float32(made["low"])) / np.float32(made["scale"]))
    return np.clip(steps, 0, STEPS).astype(np.int64)


def integer_norm(q, made, weight, bias, step):
    """The last axis of integers."""
    n, total = q.shape[-1], q.sum(-1, keepdims=True)
    d = q - (2 * total + n) // (2 * n)
    v = np.maximum((d * d).sum(-1, keepdims=True) + made["epsilon"], 1)
    root = np.vectorize(math.isqrt, otypes=[np.int64])(v)
    y = truncated(d * (2**30 // root), 2**15)
    result = y * weight.astype(np.int64) + bias.astype(np.int64)
    return result.astype(np.float32) * np.float32(step), y, root


def layer_norm(x, weight, bias, epsilon):
    x = x.astype(np.float64)
    d = x - x.mean(-1, keepdims=True)
    return d / np.sqrt((d * d).mean(-1, keepdims=True) + epsilon) * weight + bias


def case(seed, n, spread):
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((4, 5, n)) * spread + rng.standard_normal()).astype(np.float32)
    x[0, 0] = x[0, 0, 0]  # a row without variance
    return x, rng.standard_normal(n).astype(np.float32), rng.standard_normal(n).astype(np.float32)


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize(("n", "spread"), [(1, 1.0), (7, 1e-3), (64, 1.0), (300, 50.0)])
def test_it_is_that_of_pythons_integers_bit_by_bit(computed, opset, n, spread):
    x, weight, bias = case(n, n, spread)
    made = attributes(float(x.min()), float(x.max()), (-1,), n, 1e-5)
    weights, biases, step = parameters(weight, bias, n)
    got = computed("LayerNormalization", x, {**made, "step": step}, (weights, biases), opset)
    wanted, y, _ = integer_norm(quantized(x, made), made, weights, biases, step)
    np.testing.assert_array_equal(got, wanted)
    assert np.abs(y).max() <= 2**15
    assert np.abs(y * weights.astype(np.int64) + biases).max() < 2**31


@given(
    q=arrays(np.int64, st.integers(2, 200).map(lambda n: (1, n)), elements=st.integers(0, STEPS)),
    factor=st.floats(-4, 4),
    shift=st.floats(-4, 4),
)
def test_its_distance_from_the_float_function_of_the_same_integers(q, factor, shift):
    n = q.shape[-1]
    made = attributes(0.0, 8.0, (-1,), n, 1e-5)
    weight, bias = np.full(n, factor, np.float32), np.full(n, shift, np.float32)
    weights, biases, step = parameters(weight, bias, n)
    got, _, root = integer_norm(q, made, weights, biases, step)
    wanted = layer_norm(q * made["scale"], weight, bias, 1e-5)
    size = abs(factor) + step * 2**15
    error = math.sqrt(n) * ((2 + n / (8 * root)) / root + 2.0**-13)
    rounded = step * (2**14 + 1) + 1e-6 * np.abs(wanted)  # of factors, biases and the result
    assert (np.abs(got - wanted) <= size * error + rounded).all()


@given(v=st.integers(1, 2**50))
def test_newtons_method_ends_at_the_floor_of_the_root(v):
    root = [1 << sum(v >= 4**i for i in range(25))]
    for _ in range(NEWTON_STEPS):
        root.append((root[-1] + v // root[-1]) // 2)
    assert min(root[-2:]) == math.isqrt(v)


def test_factors_and_biases_of_zero():
    weights, biases, step = parameters(np.zeros(3, np.float32), np.zeros(3, np.float32), 3)
    assert not weights.any()
    assert not biases.any()
    assert step > 0
