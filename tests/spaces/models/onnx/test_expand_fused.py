import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from spaces.models.export import ExportStage
from spaces.models.layers import layers
from spaces.models.onnx.expand_fused import expand_fused
from spaces.models.onnx.ort_session import ort_session
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 3, 6, 6)).astype(np.float32)


def array(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def model(op_type, inputs, arrays, **attributes):
    node = helper.make_node(op_type, inputs, ["y"], domain="com.microsoft", name="fused", **attributes)
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in (("x", ["n", 3, 6, 6]), ("y", None))
    ]
    stored = [numpy_helper.from_array(a, n) for n, a in arrays.items()]
    nodes = [node]
    if op_type == "FusedGemm":
        nodes = [helper.make_node("Flatten", ["x"], ["f"]), node]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], stored)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def outputs(proto):
    return ort_session(proto).run(None, {"x": X})[0]


CONV = {"w": array(3, 3, 3, 3), "b": array(3)}
GEMM = {"w": array(108, 5), "b": array(5)}
FUSED = [
    ("FusedConv", ["x", "w", "b"], CONV, {"activation": "Relu", "pads": [1, 1, 1, 1]}),
    ("FusedConv", ["x", "w"], CONV, {"activation": "LeakyRelu", "activation_params": [0.3], "strides": [2, 2]}),
    ("FusedConv", ["x", "w", "b", "x"], CONV, {"activation": "Relu", "pads": [1, 1, 1, 1]}),
    ("FusedGemm", ["f", "w", "b"], GEMM, {"activation": "Sigmoid", "alpha": 0.5}),
    ("FusedGemm", ["f", "w", "b"], GEMM, {"activation": "LeakyRelu", "activation_alpha": 0.2}),
    ("FusedMatMul", ["x", "w"], {"w": array(6, 5)}, {"alpha": 0.5}),
    ("FusedMatMul", ["x", "w"], {"w": array(5, 6)}, {"transB": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("op_type", "inputs", "arrays", "attributes"), FUSED)
def test_fused_layers_become_layers_with_the_same_outputs(op_type, inputs, arrays, attributes):
    fused = model(op_type, inputs, arrays, **attributes)
    expanded = expand_fused(fused)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(expanded), full_check=True)
    np.testing.assert_allclose(outputs(expanded), outputs(fused), rtol=1e-4, atol=1e-5)
    artifact = Artifact.onnx(fused, InputSpec((3, 6, 6), "x"))
    exported = ExportStage().apply(artifact, {}, StageContext(None, Cache())).proto()
    assert [(layer.name, layer.op_type) for layer in layers(exported)] == [
        ("w", op_type.removeprefix("Fused"))
    ]


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes"),
    [("FusedConv", ["x", "w"], {"activation": "Swish"}), ("FusedMatMul", ["x", "x"], {"transB": 1})],
)
def test_others_stay_as_they_are(op_type, inputs, attributes):
    fused = model(op_type, inputs, CONV, **attributes)
    assert [node.op_type for node in expand_fused(fused).graph.node] == [op_type]
