import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from spaces.models.layers import layers
from spaces.models.onnx.clean_up import clean_up
from spaces.models.onnx.opset import run, to_opset
from spaces.models.testing import assert_exported_form
from spaces.stages.artifact import Artifact, InputSpec

RNG = np.random.default_rng(0)
W = RNG.standard_normal((4, 6)).astype(np.float32)


def constant(name, value):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value), name))


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs, [output], **attributes)


def model(nodes, constants=(), as_inputs=False, output="y"):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])
    y = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(v, n) for n, v in dict(constants).items()]
    infos = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors] if as_inputs else []
    graph = helper.make_graph(nodes, "g", [x, *infos], [y], tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return onnx.shape_inference.infer_shapes(proto)


def cleaned_up(proto):
    """Cleans up a copy, asserts that outputs are equal and that it has the expected form; returns it."""
    spec, x = InputSpec((6,), "x"), RNG.standard_normal((3, 6)).astype(np.float32)
    wanted = run(proto, spec, x)
    clean_up(proto)
    np.testing.assert_allclose(run(proto, spec, x), wanted, rtol=1e-5, atol=1e-6)
    assert_exported_form(Artifact.onnx(proto, spec))
    return proto


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Transpose", ["w"], "t", perm=[1, 0]), node("MatMul", ["x", "t"], "y")],
        [node("Identity", ["w"], "t"), node("Gemm", ["x", "t"], "y", transB=1)],
        [
            constant("shape", np.array([6, 4])),
            node("Reshape", ["w", "shape"], "t"),
            node("MatMul", ["x", "t"], "y"),
        ],
        [
            node("Transpose", ["w"], "t", perm=[1, 0]),
            constant("half", np.float32(0.5)),
            node("Mul", ["t", "half"], "u"),
            node("Identity", ["u"], "v"),
            node("MatMul", ["x", "v"], "y"),
        ],
        [node("Gemm", ["x", "w"], "y", transB=1)],
    ],
)
def test_weights_behind_other_nodes_become_initializers_under_their_own_name(nodes):
    proto = cleaned_up(model(nodes, {"w": W}))
    assert [layer.name for layer in layers(proto)] == ["w"]
    assert len(proto.graph.node) == 1
    assert [i.name for i in proto.graph.initializer] == ["w"]


def test_quantized_weight_is_dequantized():
    constants = {"w": np.arange(24, dtype=np.int8).reshape(6, 4), "s": np.float32(0.1), "z": np.int8(3)}
    proto = model(
        [node("DequantizeLinear", ["w", "s", "z"], "d"), node("MatMul", ["x", "d"], "y")], constants
    )
    clean_up(proto)
    assert [layer.name for layer in layers(proto)] == ["w"]
    weight = numpy_helper.to_array(proto.graph.initializer[0])
    np.testing.assert_array_equal(weight, (constants["w"].astype(np.float32) - 3) * np.float32(0.1))


def test_constant_node_weight_takes_the_name_of_its_tensor():
    proto = cleaned_up(model([constant("w", W.T.copy()), node("MatMul", ["x", "w"], "y")]))
    assert [layer.name for layer in layers(proto)] == ["w"]


def test_a_tied_weight_is_not_changed_for_its_other_use():
    nodes = [
        node("Transpose", ["w"], "t", perm=[1, 0]),
        node("MatMul", ["x", "t"], "a"),
        node("MatMul", ["a", "w"], "y"),
    ]
    proto = cleaned_up(model(nodes, {"w": W}))
    assert [layer.name for layer in layers(proto)] == ["t", "w"]


def test_initializers_are_removed_from_the_inputs():
    proto = cleaned_up(model([node("Gemm", ["x", "w"], "y", transB=1)], {"w": W}, as_inputs=True))
    assert [i.name for i in proto.graph.input] == ["x"]


def test_identity_and_dropout_are_removed_and_the_output_keeps_its_name():
    nodes = [
        node("Identity", ["x"], "a"),
        node("Gemm", ["a", "w"], "b", transB=1),
        helper.make_node("Dropout", ["b"], ["c", "mask"]),
        node("Relu", ["c"], "d"),
        node("Identity", ["d"], "e"),
        node("Identity", ["e"], "y"),
    ]
    proto = cleaned_up(model(nodes, {"w": W}))
    assert [n.op_type for n in proto.graph.node] == ["Gemm", "Relu"]
    assert proto.graph.output[0].name == "y"


def test_an_identity_that_is_the_whole_network_stays():
    proto = model([node("Identity", ["x"], "y")])
    clean_up(proto)
    assert [n.op_type for n in proto.graph.node] == ["Identity"]
    onnx.checker.check_model(proto, full_check=True)


def test_dropout_whose_mask_is_read_stays():
    nodes = [
        helper.make_node("Dropout", ["x"], ["a", "mask"]),
        node("Cast", ["mask"], "m", to=1),
        node("Add", ["a", "m"], "y"),
    ]
    proto = model(nodes)
    clean_up(proto)
    assert "Dropout" in [n.op_type for n in proto.graph.node]


def test_names_are_unique_and_exporter_metadata_is_removed():
    nodes = [node("Relu", ["x"], "a", name="r"), node("Relu", ["a"], "b", name="r"), node("Abs", ["b"], "y")]
    nodes[0].doc_string = "/home/somebody/net.py, line 3"
    proto = model(nodes)
    proto.graph.node[1].metadata_props.add(key="trace", value="/home/somebody")
    for value in (*proto.graph.input, *proto.graph.output):
        value.metadata_props.add(key="trace", value="/home/somebody")
        value.doc_string = "somebody's"
    clean_up(proto)  # onnxruntime refuses the original
    run(proto, InputSpec((6,), "x"), np.zeros((1, 6), np.float32))
    assert [n.name for n in proto.graph.node] == ["r", "r_1", "Abs_y"]
    assert b"somebody" not in proto.SerializeToString()


def test_unused_nodes_and_initializers_are_removed():
    nodes = [node("Relu", ["x"], "unused"), node("Gemm", ["x", "w"], "y", transB=1)]
    proto = cleaned_up(model(nodes, {"w": W, "spare": W}))
    assert len(proto.graph.node) == len(proto.graph.initializer) == 1


def test_nodes_with_much_larger_outputs_are_not_folded():
    nodes = [
        constant("shape", np.array([1000, 1000])),
        node("ConstantOfShape", ["shape"], "zeros"),
        node("ReduceMean", ["zeros"], "zero", keepdims=0),
        node("Add", ["x", "zero"], "y"),
    ]
    proto = model(nodes)
    clean_up(proto)
    assert len(proto.SerializeToString()) < 10_000


def test_a_constant_that_is_infinite_is_folded_without_a_warning():  # warnings are errors in tests
    logarithm, larger = node("Log", ["zero"], "log"), node("Max", ["x", "log"], "y")
    proto = cleaned_up(model([logarithm, larger], {"zero": np.zeros(6, np.float32)}))
    assert [n.op_type for n in proto.graph.node] == ["Max"]


def test_random_nodes_are_not_folded():
    nodes = [node("RandomNormal", [], "r", shape=[6]), node("Add", ["x", "r"], "y")]
    proto = model(nodes)
    clean_up(proto)
    assert [n.op_type for n in proto.graph.node] == ["RandomNormal", "Add"]


def test_renamed_tensors_are_renamed_inside_branches():
    def branch(name):
        result = helper.make_tensor_value_info(f"out_{name}", TensorProto.FLOAT, None)
        return helper.make_graph([node(name, ["a"], f"out_{name}")], name, [], [result])

    nodes = [
        node("Identity", ["x"], "a"),
        node("ReduceSum", ["x"], "s", keepdims=0),
        node("Cast", ["s"], "c", to=TensorProto.BOOL),
        node("If", ["c"], "y", then_branch=branch("Relu"), else_branch=branch("Abs")),
    ]
    proto = model(nodes)
    x, spec = RNG.standard_normal((2, 6)).astype(np.float32), InputSpec((6,), "x")
    wanted = run(proto, spec, x)
    clean_up(proto)
    np.testing.assert_array_equal(run(proto, spec, x), wanted)
    assert "Identity" not in [n.op_type for n in proto.graph.node]


def branches(*op_types):
    """Returns the branches of an If, each an operator on the outer tensor `a`."""
    names = ("then_branch", "else_branch")
    results = [helper.make_tensor_value_info(f"out_{o}", TensorProto.FLOAT, None) for o in op_types]
    return {
        name: helper.make_graph([node(op, ["a"], result.name)], op, [], [result])
        for name, op, result in zip(names, op_types, results, strict=True)
    }


def condition():
    return [node("ReduceSum", ["x"], "s", keepdims=0), node("Cast", ["s"], "c", to=TensorProto.BOOL)]


def test_a_tensor_that_only_a_branch_reads_stays():
    nodes = [node("Relu", ["x"], "a"), *condition(), node("If", ["c"], "y", **branches("Identity", "Abs"))]
    proto = cleaned_up_if(model(nodes))
    assert "Relu" in [n.op_type for n in proto.graph.node]


def cleaned_up_if(proto):
    x, spec = RNG.standard_normal((2, 6)).astype(np.float32), InputSpec((6,), "x")
    wanted = run(proto, spec, x)
    clean_up(proto)
    np.testing.assert_allclose(run(proto, spec, x), wanted, rtol=1e-5, atol=1e-6)
    return proto


def test_a_weight_that_a_branch_reads_is_not_changed():
    nodes = [
        node("Transpose", ["a"], "t", perm=[1, 0]),
        node("MatMul", ["x", "t"], "m"),
        *condition(),
        node("If", ["c"], "i", **branches("Neg", "Abs")),
        node("MatMul", ["m", "i"], "y"),
    ]
    assert "a" in [i.name for i in cleaned_up_if(model(nodes, {"a": W})).graph.initializer]


def test_a_scalar_stays_a_scalar():
    nodes = [
        constant("zero", np.int64(0)),
        node("Shape", ["x"], "shape"),
        node("Gather", ["shape", "zero"], "n"),
        constant("axis", np.array([0])),
        node("Unsqueeze", ["n", "axis"], "n1"),
        constant("rest", np.array([-1])),
        node("Concat", ["n1", "rest"], "to", axis=0),
        node("Reshape", ["x", "to"], "y"),
    ]
    proto = cleaned_up(model(nodes))
    assert {i.name: list(i.dims) for i in proto.graph.initializer}["zero"] == []


@pytest.mark.parametrize("opset", [13, 21])
def test_model_local_functions_are_inlined(opset):
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("my", 1)]
    body = [node("MatMul", ["i", "w"], "t"), node("Relu", ["t"], "o")]
    block = helper.make_function("my", "Block", ["i", "w"], ["o"], body, opsets[:1])
    calls = [node("Block", ["x", "v"], "a", domain="my"), node("Block", ["a", "w"], "y", domain="my")]
    proto = model([node("Relu", ["x"], "y")], {"v": np.eye(6, dtype=np.float32), "w": W.T.copy()})
    del proto.graph.node[:], proto.opset_import[:]
    proto.graph.node.extend(calls)
    proto.opset_import.extend(opsets)
    proto.functions.append(block)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    proto = cleaned_up(to_opset(proto, InputSpec((6,), "x")))
    assert [layer.name for layer in layers(proto)] == ["v", "w"]
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 21)]
    assert not proto.functions
