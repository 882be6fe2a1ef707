"""Biases of Gemm that broadcast."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from spaces.models.layers import layers
from spaces.models.onnx.clean_up import clean_up
from spaces.models.onnx.opset import run
from spaces.stages.artifact import InputSpec

RNG = np.random.default_rng(0)
A, B = (RNG.standard_normal(shape).astype(np.float32) for shape in ((6, 4), (5, 4)))


def cleaned_up(bias, *more, constant=False, **attributes):
    """Cleans up two Gemms whose first bias is `bias`; returns the shapes of the constant biases, and of all constants."""
    bias = np.asarray(bias, np.float32)
    nodes = [helper.make_node("Gemm", ["x", "a", "bias"], ["h"], **attributes), *more]
    arrays = {"a": A, "b": B, **({} if constant else {"bias": bias})}
    if constant:
        nodes.insert(0, helper.make_node("Constant", [], ["bias"], value=numpy_helper.from_array(bias)))
    if not more:
        nodes.append(helper.make_node("Gemm", ["h", "b"], ["y"], transB=1))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, n) for n, v in arrays.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    x, spec = RNG.standard_normal((3, 6)).astype(np.float32), InputSpec((6,), "x")
    wanted = run(proto, spec, x)
    clean_up(proto)
    onnx.checker.check_model(proto)
    np.testing.assert_allclose(run(proto, spec, x), wanted, rtol=1e-5, atol=1e-6)
    shapes = {i.name: tuple(i.dims) for i in proto.graph.initializer}
    return [shapes[layer.bias] for layer in layers(proto) if layer.bias in shapes], shapes


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 4), (4,)])
@pytest.mark.parametrize("constant", [False, True])
def test_a_bias_that_is_the_same_for_every_row_gets_one_axis(shape, constant):
    bias = RNG.standard_normal(shape)
    assert cleaned_up(bias, constant=constant, beta=0.5)[0] == [(4,)]


def test_a_bias_that_differs_between_rows_stays():
    assert cleaned_up(np.ones((3, 1)))[0] == [(3, 1)]
    assert cleaned_up(np.ones((3, 4)))[0] == [(3, 4)]


def test_a_scalar_that_layers_share_gets_each_layer_s_size():
    found, shapes = cleaned_up(0.5, helper.make_node("Gemm", ["h", "b", "bias"], ["y"], transB=1))
    assert found == [(4,), (5,)]
    assert len(shapes) == 4


def test_a_bias_that_an_add_reads_too_is_copied():
    more = (
        helper.make_node("Add", ["h", "bias"], ["s"]),
        helper.make_node("Gemm", ["s", "b"], ["y"], transB=1),
    )
    found, shapes = cleaned_up(np.ones((1, 4)), *more)
    assert found == [(4,)]
    assert shapes["bias"] == (1, 4)


def test_a_computed_bias_stays():
    mean = helper.make_node("ReduceMean", ["h"], ["m"], keepdims=1)
    more = (mean, helper.make_node("Gemm", ["h", "b", "m"], ["y"], transB=1))
    assert "m" not in cleaned_up(0.5, *more)[1]
