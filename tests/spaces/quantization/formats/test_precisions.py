"""Float16 and dynamic uint8 models, run by plain onnxruntime."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from spaces.errors import StageError
from spaces.models.layers import layers
from spaces.quantization.formats.dynamic import to_dynamic_uint8
from spaces.quantization.formats.float16 import to_float16
from spaces.stages.artifact import Artifact


def test_float16_halves_the_weights_and_stays_near(small, run):
    proto = small.proto()
    made = Artifact.onnx(to_float16(proto), small.input)
    types = {i.name: i.data_type for i in made.proto().graph.initializer}
    assert {types[layer.name] for layer in layers(proto)} == {TensorProto.FLOAT16}
    assert [v.type.tensor_type.elem_type for v in made.proto().graph.output] == [TensorProto.FLOAT]
    x = small.input.noise(7)
    expected = run(small, x)
    np.testing.assert_allclose(run(made, x), expected, atol=0.01 * np.abs(expected).max())
    assert proto.SerializeToString() == small.proto().SerializeToString()  # the float model is not changed


def test_float16_refuses_weights_beyond_its_range(lonely):
    proto = lonely.proto()
    values = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    values[0, 0] = 1e6
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "only.weight"))
    with pytest.raises(StageError, match=r"only.weight has a value of 1e\+06, but float16 ends at 65504"):
        to_float16(proto)


@pytest.mark.parametrize("network", ["small", "lonely"])
def test_dynamic_quantization_runs_and_stays_near(network, run, request):
    artifact = request.getfixturevalue(network)
    proto = artifact.proto()
    made = Artifact.onnx(to_dynamic_uint8(proto), artifact.input)
    onnx.checker.check_model(made.proto(), full_check=True)
    operators = [node.op_type for node in made.proto().graph.node]
    assert operators.count("ConvInteger") + operators.count("MatMulInteger") == len(layers(proto))
    x = artifact.input.noise(7)
    expected = run(artifact, x)
    np.testing.assert_allclose(run(made, x), expected, atol=0.15 * np.abs(expected).max())
    assert not [p for p in made.proto().metadata_props if p.key == "onnx.infer"]


def test_dynamic_quantization_keeps_layers_float(small):
    names = [layer.name for layer in layers(small.proto())]
    made = to_dynamic_uint8(small.proto(), keep_float=names[:1])
    assert [layer.name for layer in layers(made)] == names[:1]
    made = to_dynamic_uint8(small.proto(), keep_float=names[-1:])
    assert [layer.name for layer in layers(made)] == names[-1:]
    assert to_dynamic_uint8(small.proto(), keep_float=names) == small.proto()


def test_dynamic_quantization_of_a_weight_with_two_readers(build, run):
    b = build((16,))
    weight = b.weight("shared", 16, 16)
    x = b.op("Relu", [b.op("MatMul", ["input", weight], "one")], "relu")
    artifact = b.artifact(b.op("Gemm", [x, weight], "two", transB=1))
    made = Artifact.onnx(to_dynamic_uint8(artifact.proto()), artifact.input)
    x = artifact.input.noise(7)
    expected = run(artifact, x)
    np.testing.assert_allclose(run(made, x), expected, atol=0.1 * np.abs(expected).max())


def test_dynamic_quantization_of_an_lstm(build, run):
    b = build((6, 5))
    rng = np.random.default_rng(0)
    time = b.op("Transpose", ["input"], "time", perm=[2, 0, 1])
    w, r = (
        b.constant(name, rng.normal(0, 0.3, (1, 32, n)).astype(np.float32))
        for name, n in (("w", 6), ("r", 8))
    )
    b.op("LSTM", [time, w, r], "steps", hidden_size=8)
    artifact = b.artifact(
        b.op("ReduceSum", ["steps", b.constant("axes", np.array([0, 1]))], "sum", keepdims=0)
    )
    proto = artifact.proto()
    made = Artifact.onnx(to_dynamic_uint8(proto), artifact.input)
    operators = [node.op_type for node in made.proto().graph.node]
    assert (operators.count("DynamicQuantizeLSTM"), operators.count("LSTM")) == (1, 0)
    assert to_dynamic_uint8(proto, keep_float=["r"]) == proto
    x = artifact.input.noise(7)
    expected = run(artifact, x)
    np.testing.assert_allclose(run(made, x), expected, atol=0.1 * np.abs(expected).max())
