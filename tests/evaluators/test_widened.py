"""4-bit weights stored in 8 bits."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from evaluators.runtime import open_session, run_session
from evaluators.testing import tiny_model
from evaluators.widened import widened
from spaces.stages.artifact import Artifact, InputSpec


def narrow(kind):
    rng = np.random.default_rng(0)
    low = 0 if kind == TensorProto.UINT4 else -8
    weight = helper.make_tensor("w", kind, [6, 5], rng.integers(low, low + 16, 30))
    zero = helper.make_tensor("zero", kind, [], [low + 8])
    scale = numpy_helper.from_array(np.float32(0.1), "scale")
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["w_float"]),
        helper.make_node("MatMul", ["input", "w_float"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 5])],
        [weight, zero, scale],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return Artifact.onnx(model, InputSpec((6,)))


def outputs(artifact, inputs):
    return run_session(open_session(artifact.onnx_bytes, 1), inputs, ["output"])[0]


def test_the_same_integers_give_the_same_outputs():
    inputs = np.random.default_rng(1).standard_normal((9, 6)).astype(np.float32)
    for kind, wide in ((TensorProto.INT4, TensorProto.INT8), (TensorProto.UINT4, TensorProto.UINT8)):
        artifact = narrow(kind)
        found = widened(artifact)
        onnx.checker.check_model(found.proto(), full_check=True)
        assert {i.data_type for i in found.proto().graph.initializer} == {wide, TensorProto.FLOAT}
        np.testing.assert_allclose(outputs(found, inputs), outputs(artifact, inputs), rtol=1e-5, atol=1e-5)


def test_a_model_without_4_bit_weights_is_returned_unchanged():
    artifact = tiny_model()
    assert widened(artifact) is artifact
