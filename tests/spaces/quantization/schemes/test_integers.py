"""Integers equal those of onnxruntime's tool."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from spaces.quantization.qdq.ort_adapter import quant_type
from spaces.quantization.schemes.integers import (
    INT32,
    bias_integers,
    stored_bytes,
    stored_zero_point,
    weight_integers,
)
from spaces.quantization.schemes.scheme import Grid


@settings(deadline=None)
@given(
    seed=st.integers(0, 1000),
    bits=st.sampled_from((4, 8)),
    stored=st.sampled_from(("signed", "unsigned")),
    axis=st.sampled_from((None, 0, 1)),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3)),
)
def test_weights_are_rounded_as_by_the_tool(seed, bits, stored, axis, shape):
    from onnxruntime.quantization.quant_utils import ONNX_TYPE_TO_NP_TYPE, quantize_onnx_initializer

    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(shape).astype(np.float32)
    weight[0, 0] = np.round(weight[0, 0] * 4) / 4  # includes halves of a step
    n = () if axis is None else (shape[axis],)
    scale = rng.choice(np.float32([0.5, 0.1, 0.013]), n).astype(np.float32)
    grid = Grid(np.asarray(scale), np.full(n, rng.integers(-3, 4)), bits, axis)
    kind = quant_type(bits, stored).tensor_type
    zero = stored_zero_point(grid, stored).astype(ONNX_TYPE_TO_NP_TYPE[kind])
    wanted = quantize_onnx_initializer(numpy_helper.from_array(weight, "w"), kind, zero, grid.scale, axis)
    assert weight_integers(weight, grid, stored) == wanted.raw_data


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_an_unsigned_form_shifts_zero_points_by_half_the_range(bits):
    grid = Grid(np.ones(3, np.float32), np.array([-1, 0, 2]), bits, 0)
    assert stored_zero_point(grid, "signed").tolist() == [-1, 0, 2]
    assert (stored_zero_point(grid, "unsigned") - 2 ** (bits - 1)).tolist() == [-1, 0, 2]


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("stored", ["signed", "unsigned"])
def test_zero_points_are_encoded_as_by_onnx(bits, stored):
    kind = quant_type(bits, stored).tensor_type
    low = 0 if stored == "unsigned" else -(2 ** (bits - 1))
    for numbers in ([low], [low + 2**bits - 1], [low, 0, 3], [1, 2, 3, 4]):
        tensor = helper.make_tensor("t", kind, [len(numbers)], numbers)
        wanted = numpy_helper.from_array(numpy_helper.to_array(tensor), "t")
        assert stored_bytes(np.array(numbers), bits, stored) == wanted.raw_data


def test_biases_are_clipped_to_int32():
    bias, scale = np.float32([1.0, 1e9, -1e9, 0.25, -0.75]), np.float32([0.5, 1e-3, 1e-3, 0.5, 0.5])
    assert bias_integers(bias, scale).tolist() == [2, INT32.max, INT32.min, 0, -2]
