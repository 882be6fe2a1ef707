import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from spaces.models.layers import layers
from spaces.models.onnx import fold_batch_norm as folding
from spaces.models.onnx.opset import run
from spaces.stages.artifact import InputSpec


def fold_batch_norm(proto):
    """Folds in place; returns the number of folded nodes."""
    graph = ir.from_proto(proto)
    n_folded = folding.fold_batch_norm(graph)
    proto.CopyFrom(ir.to_proto(graph))
    return n_folded


OPSET = [helper.make_opsetid("", 21)]


def model(nodes, constants, shape, outputs=("y",)):
    values = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in outputs]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", *shape])
    tensors = [numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in constants.items()]
    proto = helper.make_model(
        helper.make_graph(nodes, "g", [x], values, tensors), opset_imports=OPSET, ir_version=10
    )
    proto = onnx.shape_inference.infer_shapes(proto)
    onnx.checker.check_model(proto)
    return proto


def norm_constants(rng, n, prefix="bn"):
    return {
        f"{prefix}.gamma": rng.uniform(-2, 2, n),
        f"{prefix}.beta": rng.standard_normal(n),
        f"{prefix}.mean": rng.standard_normal(n),
        f"{prefix}.var": rng.uniform(0.1, 2, n),
    }


def norm(x, y, prefix="bn", **attributes):
    names = [f"{prefix}.{p}" for p in ("gamma", "beta", "mean", "var")]
    return helper.make_node("BatchNormalization", [x, *names], [y], f"node {prefix} {y}", **attributes)


def outputs(proto, shape):
    x = np.random.default_rng(9).standard_normal((3, *shape)).astype(np.float32)
    return run(proto, InputSpec(shape, "x"), x)


def check_same(proto, shape, n_folded):
    wanted = outputs(proto, shape)
    assert fold_batch_norm(proto) == n_folded
    onnx.checker.check_model(proto)
    np.testing.assert_allclose(outputs(proto, shape), wanted, rtol=1e-4, atol=1e-4)
    kinds = [n.op_type for n in proto.graph.node]
    used = {name for node in proto.graph.node for name in node.input}
    assert {i.name for i in proto.graph.initializer} <= used
    return kinds


@settings(max_examples=40, deadline=None)
@given(
    op=st.sampled_from(["Conv", "ConvTranspose"]),
    groups=st.integers(1, 3),
    per_group=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.integers(1, 3),
    bias=st.booleans(),
    epsilon=st.sampled_from([1e-5, 1e-2]),
    seed=st.integers(0, 1000),
)
def test_convolutions_compute_the_same(op, groups, per_group, kernel, bias, epsilon, seed):
    rng = np.random.default_rng(seed)
    n_in, n_out = (groups * n for n in per_group)
    shape = (n_out, n_in // groups) if op == "Conv" else (n_in, n_out // groups)
    constants = {"l.weight": rng.standard_normal((*shape, kernel, kernel)), **norm_constants(rng, n_out)}
    if bias:
        constants["l.bias"] = rng.standard_normal(n_out)
    layer = helper.make_node(op, ["x", "l.weight", *(["l.bias"] if bias else [])], ["a"], "l", group=groups)
    proto = model([layer, norm("a", "y", epsilon=epsilon)], constants, (n_in, 5, 5))
    assert check_same(proto, (n_in, 5, 5), 1) == [op]
    (found,) = layers(proto)
    assert (found.name, found.bias, found.output) == ("l.weight", "l.bias", "y")


@settings(max_examples=40, deadline=None)
@given(
    transposed=st.booleans(),
    bias=st.sampled_from([None, (), (1,), (4,), (1, 4), (1, 1)]),
    alpha=st.sampled_from([1.0, 0.5]),
    beta=st.sampled_from([1.0, -2.0]),
    seed=st.integers(0, 1000),
)
def test_gemm_computes_the_same(transposed, bias, alpha, beta, seed):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((4, 6) if transposed else (6, 4))
    constants = {"w": weight, **norm_constants(rng, 4)}
    if bias is not None:
        constants["b"] = rng.standard_normal(bias)
    layer = helper.make_node(
        "Gemm",
        ["x", "w", *(["b"] if bias is not None else [])],
        ["a"],
        "l",
        alpha=alpha,
        beta=beta,
        transB=int(transposed),
    )
    proto = model([layer, norm("a", "y")], constants, (6,))
    assert check_same(proto, (6,), 1) == ["Gemm"]
    assert layers(proto)[0].name == "w"


def conv(x, y, weight="w", bias=None):
    return helper.make_node("Conv", [x, weight, *([bias] if bias else [])], [y], f"conv {y}")


def two_of(rng, n=3):
    return {"w": rng.standard_normal((n, n, 1, 1)), **norm_constants(rng, n), **norm_constants(rng, n, "bn2")}


def add(a, b, y="y"):
    return helper.make_node("Add", [a, b], [y], f"add {y}")


@pytest.mark.parametrize(
    ("nodes", "names"),
    [
        ([conv("x", "a"), norm("a", "b"), add("a", "b")], ("y",)),  # the layer's output is read elsewhere
        ([conv("x", "y"), norm("y", "z")], ("y", "z")),  # ... or is an output of the graph
        ([conv("x", "a"), norm("a", "b"), conv("b", "y")], ("y",)),  # the weight is shared
        ([norm("x", "a"), conv("a", "y")], ("y",)),  # no layer before it
        ([conv("x", "a"), helper.make_node("Relu", ["a"], ["b"], "relu"), norm("b", "y")], ("y",)),
    ],
)
def test_nodes_that_cannot_be_folded_stay(nodes, names):
    proto = model(nodes, two_of(np.random.default_rng(0)), (3, 4, 4), names)
    assert "BatchNormalization" in check_same(proto, (3, 4, 4), 0)


def test_output_of_the_graph_keeps_its_name():
    rng = np.random.default_rng(1)
    nodes = [conv("x", "a"), norm("a", "y"), helper.make_node("Relu", ["y"], ["z"], "relu")]
    proto = model(nodes, two_of(rng), (3, 4, 4), ("y", "z"))
    assert check_same(proto, (3, 4, 4), 1) == ["Conv", "Relu"]
    assert [o.name for o in proto.graph.output] == ["y", "z"]


def test_a_shared_bias_is_not_changed_for_the_other_layer():
    rng = np.random.default_rng(2)
    constants = {**two_of(rng), "w2": rng.standard_normal((3, 3, 1, 1)), "shared": rng.standard_normal(3)}
    nodes = [conv("x", "a", "w", "shared"), norm("a", "b"), conv("b", "y", "w2", "shared")]
    proto = model(nodes, constants, (3, 4, 4))
    check_same(proto, (3, 4, 4), 1)
    assert [layer.bias for layer in layers(proto)] == ["w_bias", "shared"]


def test_two_in_a_row_fold_into_one_layer():
    rng = np.random.default_rng(3)
    proto = model([conv("x", "a"), norm("a", "b"), norm("b", "y", "bn2")], two_of(rng), (3, 4, 4))
    wanted = outputs(proto, (3, 4, 4))
    while fold_batch_norm(proto):
        pass
    assert [n.op_type for n in proto.graph.node] == ["Conv"]
    np.testing.assert_allclose(outputs(proto, (3, 4, 4)), wanted, rtol=1e-4, atol=1e-4)


def test_a_node_in_training_mode_stays():
    rng = np.random.default_rng(4)
    names = [f"bn.{p}" for p in ("gamma", "beta", "mean", "var")]
    training = helper.make_node("BatchNormalization", ["a", *names], ["y", "m", "v"], "bn", training_mode=1)
    proto = model([conv("x", "a"), training], two_of(rng), (3, 4, 4))
    assert fold_batch_norm(proto) == 0


def test_a_gemm_with_a_bias_matrix_is_not_folded():
    rng = np.random.default_rng(5)
    constants = {"w": rng.standard_normal((6, 3)), "b": rng.standard_normal((3, 1)), **norm_constants(rng, 3)}
    gemm = helper.make_node("Gemm", ["x", "w", "b"], ["a"], "l")
    proto = model([gemm, norm("a", "y")], constants, (6,))
    assert check_same(proto, (6,), 0) == ["Gemm", "BatchNormalization"]


@settings(max_examples=20, deadline=None)
@given(
    n_in=st.integers(1, 4),
    n_out=st.integers(1, 4),
    transposed=st.booleans(),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_linear_layer_behind_it_takes_it_up(n_in, n_out, transposed, bias, seed):
    rng = np.random.default_rng(seed)
    constants = norm_constants(rng, n_in) | {
        "w": rng.standard_normal((n_out, n_in) if transposed else (n_in, n_out)),
        "b": rng.standard_normal(n_out),
    }
    inputs = ["h", "w", "b"] if bias else ["h", "w"]
    gemm = helper.make_node("Gemm", inputs, ["y"], alpha=0.5, beta=2.0, transB=int(transposed))
    constants = constants if bias else {n: v for n, v in constants.items() if n != "b"}
    proto = model([norm("x", "h"), gemm], constants, [n_in])
    assert check_same(proto, [n_in], 1) == ["Gemm"]


def test_it_stays_if_something_else_reads_it():
    rng = np.random.default_rng(0)
    constants = norm_constants(rng, 3) | {"w": rng.standard_normal((3, 3))}
    nodes = [
        norm("x", "h"),
        helper.make_node("Gemm", ["h", "w"], ["z"]),
        helper.make_node("Add", ["h", "z"], ["y"]),
    ]
    assert "BatchNormalization" in check_same(model(nodes, constants, [3]), [3], 0)
