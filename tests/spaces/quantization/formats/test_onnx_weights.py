"""Packed weights in ONNX files: what plain onnxruntime computes, what is recorded, and what is refused."""

from dataclasses import asdict

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from spaces.errors import StageError
from spaces.models.export import ExportStage
from spaces.models.layers import layers
from spaces.models.zoo.digits_cnn import DigitsCNN
from spaces.quantization.formats.base import WeightFormat
from spaces.quantization.formats.fixed_point import FixedPoint
from spaces.quantization.formats.gwq import Gwq
from spaces.quantization.formats.onnx_weights import encode_layers, with_packed_weights
from spaces.quantization.formats.shift_add import ShiftAdd
from spaces.quantization.formats.stored import packed_bytes, simulated_layers, stored_weights
from spaces.quantization.formats.ternary import Ternary
from spaces.quantization.formats.uniform import Uniform
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact

ON_GRID = [
    Uniform(2, 16),
    Uniform(3, "channel", symmetric=True),
    Uniform(4, 16),
    Uniform(4, 16, symmetric=True),
    Uniform(4, 5),  # the last block is shorter
    Uniform(4, "tensor"),
    Uniform(6, "channel"),
    Uniform(8, 16, symmetric=True),
    Uniform(16, "channel", symmetric=True, scale_dtype="float32"),
    Ternary(),
    Ternary("channel"),
    Ternary(16),
    FixedPoint(5),
    FixedPoint(8, k_hot=2),
]
SIMULATED = [Gwq(3, 16), ShiftAdd(3)]


@pytest.fixture
def products(build) -> Artifact:
    """MatMul with an Add, Gemm with and without transposed weights, and products of three dimensions."""
    b = build((7, 32))
    x = b.op(
        "Add", [b.op("MatMul", ["input", b.weight("first", 32, 48)], "product"), b.bias("bias", 48)], "sum"
    )
    y = b.op("MatMul", [x, b.weight("second", 48, 16)], "narrow")
    flat = b.op("Flatten", [b.op("ReduceMean", [y, b.constant("axes", np.array([1]))], "mean")], "flat")
    z = b.linear(flat, "third", 16, 12)
    return b.artifact(b.op("Gemm", [z, b.weight("fourth", 12, 5)], "out"))


def packed_model(artifact: Artifact, form: WeightFormat) -> tuple[Artifact, dict, Artifact]:
    """Returns the model with packed weights, the packed weights, and the float model with the decoded weights."""
    proto = artifact.proto()
    packed = encode_layers(proto, dict.fromkeys((layer.name for layer in layers(proto)), form))
    made = with_packed_weights(proto, packed)
    onnx.checker.check_model(made, full_check=True)
    for stored in proto.graph.initializer:
        if stored.name in packed:
            stored.CopyFrom(numpy_helper.from_array(packed[stored.name].decoded(), stored.name))
    return Artifact.onnx(made, artifact.input), packed, Artifact.onnx(proto, artifact.input)


@pytest.mark.parametrize("form", [*ON_GRID, *SIMULATED], ids=str)
@pytest.mark.parametrize("network", ["products", "small"])
def test_onnxruntime_computes_with_the_decoded_weights(form, network, run, request) -> None:
    artifact = request.getfixturevalue(network)
    made, packed, decoded = packed_model(artifact, form)
    x = artifact.input.noise(3)
    expected = run(decoded, x)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(run(made, x, optimize=False), expected, atol=1e-5 * scale)
    # Optimized, blocks of 16 or more inputs become kernels that round activations to 8 bits.
    np.testing.assert_allclose(run(made, x), expected, atol=0.05 * scale)
    assert simulated_layers(made.onnx_bytes) == (
        dict.fromkeys(packed, f"weight_format={form.name}") if form in SIMULATED else {}
    )
    recorded = stored_weights(made.proto())
    assert {name: w.packed_bytes for name, w in recorded.items()} == {
        n: p.packed_bytes for n, p in packed.items()
    }
    assert all(weight.options == asdict(form) for weight in recorded.values())


@pytest.mark.parametrize("form", ON_GRID, ids=str)
def test_dequantized_weights_are_the_decoded_ones_bit_by_bit(form, products, small) -> None:
    import onnxruntime as ort

    for artifact in (products, small):
        made, packed, _ = packed_model(artifact, form)
        proto = made.proto()
        inputs = {layer.name: layer for layer in layers(artifact.proto())}
        proto.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in inputs)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        weights = session.run(list(inputs), artifact.input.feeds(artifact.input.zeros(1)))
        for name, weight in zip(inputs, weights, strict=True):
            expected = packed[name].decoded()
            same_layout = weight if weight.shape == expected.shape else weight.T
            assert same_layout.tobytes() == expected.tobytes(), name


def test_matmul_with_blocks_is_one_kernel(products, tmp_path) -> None:
    import onnxruntime as ort

    made, *_ = packed_model(products, Uniform(4, 16))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(made.onnx_bytes, options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert operators.count("MatMulNBits") == 4
    assert "DequantizeLinear" not in operators


@pytest.mark.slow
def test_digits_network(run) -> None:
    import torch

    torch.manual_seed(0)
    network = torch_artifact(DigitsCNN().eval(), InputSpec((1, 8, 8)))
    artifact = ExportStage().apply(network, {}, StageContext(None, Cache()))
    for form in (Uniform(4, "channel"), Uniform(3, 32), ShiftAdd(3)):
        made, packed, decoded = packed_model(artifact, form)
        x = artifact.input.noise(5)
        np.testing.assert_allclose(run(made, x, optimize=False), run(decoded, x), atol=1e-4)
        floats = sum(4 * p.values.size for p in packed.values())
        stored = sum(p.packed_bytes for p in packed.values())
        assert (
            packed_bytes(made.onnx_bytes) - len(artifact.onnx_bytes) < stored - floats + 8000
        )  # nodes, records
        assert packed_bytes(made.onnx_bytes) < 0.4 * len(artifact.onnx_bytes)


def test_a_shared_weight_serves_all_its_readers(build, run) -> None:
    b = build((16,))
    weight = b.weight("shared", 16, 16)
    x = b.op("MatMul", ["input", weight], "one")
    artifact = b.artifact(b.op("Gemm", [b.op("Relu", [x], "relu"), weight], "two", alpha=2.0))
    made, _, decoded = packed_model(artifact, Uniform(4, 8))
    x = artifact.input.noise(2)
    np.testing.assert_allclose(run(made, x, optimize=False), run(decoded, x), rtol=1e-4, atol=1e-5)


def test_refuses_unknown_layers_and_other_shapes(products) -> None:
    proto = products.proto()
    with pytest.raises(
        StageError, match=r"Unknown layer 'frist' in the weight formats\. Did you mean 'first'"
    ):
        encode_layers(proto, {"frist": Uniform()})
    wrong = Uniform().encode(np.zeros((3, 3), np.float32))
    with pytest.raises(StageError, match=r"first has the shape \(32, 48\), not \(3, 3\)"):
        with_packed_weights(proto, {"first": wrong})
