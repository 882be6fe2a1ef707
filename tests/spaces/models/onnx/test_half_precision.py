import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from spaces.models.onnx.half_precision import without_half_precision
from spaces.models.onnx.ort_session import ort_session

F16, F32 = TensorProto.FLOAT16, TensorProto.FLOAT


def model(nodes, arrays, outside=F32, functions=()):
    values = [helper.make_tensor_value_info(name, outside, ["n", 4]) for name in "xy"]
    graph = helper.make_graph(
        nodes, "g", values[:1], values[1:], [numpy_helper.from_array(a, n) for n, a in arrays.items()]
    )
    opsets = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=list(functions))


def weight(dtype=np.float16):
    return np.random.default_rng(0).standard_normal((4, 4)).astype(dtype)


def outputs(proto, dtype=np.float32):
    x = np.random.default_rng(1).standard_normal((8, 4)).astype(dtype)
    return ort_session(proto).run(None, {"x": x})[0]


def branches(name):
    """Returns an If whose branches hold a float16 weight."""
    value = [helper.make_tensor_value_info("o", F16, None)]
    stored = [numpy_helper.from_array(weight(), "w2")]
    inside = helper.make_graph([helper.make_node("MatMul", [name, "w2"], ["o"])], "b", [], value, stored)
    return helper.make_node("If", ["c"], ["z"], then_branch=inside, else_branch=inside)


def test_float16_inside_becomes_float32_and_casts_become_identities():
    nodes = [
        helper.make_node("Cast", ["x"], ["xh"], to=F16),
        helper.make_node("MatMul", ["xh", "w"], ["a"]),
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.array(0.5, np.float16))),
        helper.make_node("Mul", ["a", "k"], ["m"]),
        branches("m"),
        helper.make_node("Cast", ["z"], ["y"], to=F32),
    ]
    half = model(nodes, {"w": weight(), "c": np.array(True)})
    single = without_half_precision(half)
    onnx.checker.check_model(single, full_check=True)
    assert b"float16" not in onnx.printer.to_text(single).encode()
    assert [n.op_type for n in single.graph.node] == [
        "Identity",
        "MatMul",
        "Constant",
        "Mul",
        "If",
        "Identity",
    ]
    np.testing.assert_array_equal(numpy_helper.to_array(single.graph.initializer[0]), weight().astype("f4"))
    np.testing.assert_allclose(outputs(single), outputs(half), atol=0.02)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_inputs_and_outputs_become_float32(dtype):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    half = model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight(dtype)}, kind)
    single = without_half_precision(half)
    assert {v.type.tensor_type.elem_type for v in (*single.graph.input, *single.graph.output)} == {F32}
    assert outputs(single).dtype == np.float32


def test_functions_are_converted():
    body = [
        helper.make_node("Cast", ["p"], ["h"], to=F16),
        helper.make_node("Sigmoid", ["h"], ["s"]),
        helper.make_node("Cast", ["s"], ["q"], to=F32),
    ]
    function = helper.make_function("own", "Act", ["p"], ["q"], body, [helper.make_opsetid("", 21)])
    half = model([helper.make_node("Act", ["x"], ["y"], domain="own")], {}, functions=[function])
    half.opset_import.append(helper.make_opsetid("own", 1))
    single = without_half_precision(half)
    assert all(a.i == F32 for node in single.functions[0].node for a in node.attribute)
    np.testing.assert_allclose(outputs(single), outputs(half), atol=1e-3)


def test_a_float32_model_is_returned_itself():
    given = model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight(np.float32)})
    assert without_half_precision(given) is given
    other = helper.make_node("Constant", [], ["nan"], value_float=float("nan"))
    given.graph.node.insert(0, other)
    assert without_half_precision(given) is given
