import numpy as np
import pytest

from evaluators.cost.graph.runtime_graph import runtime_graph
from evaluators.devices.kinds import KINDS
from evaluators.testing import model_from_text, tiny_model
from spaces.errors import EvaluationError
from spaces.stages.artifact import Artifact, InputSpec


def test_the_float_network_has_the_kernels_of_the_optimized_graph():
    graph = runtime_graph(tiny_model())
    assert [k.op.removeprefix("nchwc.") for k in graph.kernels if k.macs] in (
        ["Conv", "Gemm"],
        ["FusedConv", "Gemm"],  # processors without a blocked layout
    )
    assert all(k.kind in KINDS and k.dtype == "float32" for k in graph.kernels)
    conv = next(k for k in graph.kernels if k.kind == "conv")
    assert conv.macs >= 64 * 4 * 27  # more if channels are padded to a block
    assert conv.geometry.window == (3, 3)
    assert conv.geometry.out_size == (8, 8)
    assert conv.weight_bytes >= 4 * 27 * 4
    assert "Relu" not in {k.op for k in graph.kernels}


def test_kernels_read_tensors_that_are_written_before():
    graph = runtime_graph(tiny_model(weight_bits=8))
    written = set(graph.inputs)
    for kernel in graph.kernels:
        assert written.issuperset(kernel.inputs)
        written.update(kernel.outputs)
    assert written.issuperset(graph.outputs)
    assert written == set(graph.tensor_bytes)
    assert all(graph.tensor_bytes[name] > 0 for name in written)


QDQ_CONV = """a (float[n, 3, 8, 8] input) => (float[n, 4, 8, 8] output) {
    xq = QuantizeLinear (input, xs, xz)
    x = DequantizeLinear (xq, xs, xz)
    w = DequantizeLinear (wq, ws, wz)
    y = Conv <pads = [1, 1, 1, 1]> (x, w)
    yq = QuantizeLinear (y, xs, xz)
    output = DequantizeLinear (yq, xs, xz)
}"""


def test_quantized_convolutions_are_integer_kernels():
    stored = {
        "xs": np.array(0.1, np.float32), "xz": np.array(128, np.uint8), "ws": np.array(0.02, np.float32),
        "wz": np.array(0, np.int8), "wq": np.ones((4, 3, 3, 3), np.int8),
    }  # fmt: skip
    by_kind = {k.kind: k for k in runtime_graph(model_from_text(QDQ_CONV, stored)).kernels}
    conv = by_kind["conv"]
    assert conv.op.startswith("QLinearConv")
    assert (conv.dtype, conv.weight_bits, conv.activation_bits) == ("int8", 8, 8)
    assert "quantize" in by_kind


@pytest.mark.parametrize("zero", [0, 3])
def test_a_nonzero_weight_zero_point_is_another_kernel(zero):
    stored = {
        "xs": np.array(0.1, np.float32), "xz": np.array(128, np.uint8), "ws": np.array(0.02, np.float32),
        "wz": np.array(zero, np.int8), "wq": np.ones((4, 3, 3, 3), np.int8),
    }  # fmt: skip
    (conv,) = (k for k in runtime_graph(model_from_text(QDQ_CONV, stored)).kernels if k.kind == "conv")
    assert conv.op.endswith(".shifted") == (zero != 0)


ACTIVATED_CONV = """a (float[n, 16, 8, 8] input) => (float[n, 16, 8, 8] output) {
    y = Conv <pads = [1, 1, 1, 1]> (input, w)
    output = ACTIVATION
}"""


@pytest.mark.parametrize(("activation", "name"), [("Relu (y)", ""), ("Clip (y, low, high)", ".Clip")])
def test_an_activation_function_with_its_own_pass_is_another_kernel(activation, name):
    text = ACTIVATED_CONV.replace("ACTIVATION", activation)
    stored = {
        "w": np.ones((16, 16, 3, 3), np.float32),
        "low": np.array(0, np.float32),
        "high": np.array(6, np.float32),
    }
    graph = runtime_graph(model_from_text(text, stored))
    (conv,) = (k for k in graph.kernels if k.kind == "conv")
    assert conv.op.endswith("Conv" + name)


def test_views_copy_no_bytes_but_are_kernels():
    graph = runtime_graph(tiny_model())
    view = next(k for k in graph.kernels if k.op in ("Flatten", "Reshape"))
    assert (view.kind, view.input_bytes, view.output_bytes) == ("movement", 0, 0)


def test_nodes_with_equal_names_are_distinguished():
    model = tiny_model().proto()
    for node in model.graph.node:
        node.name = "same"
    artifact = Artifact.onnx(model, InputSpec((3, 8, 8), "input"))
    plain = runtime_graph(tiny_model())
    assert [k.op for k in runtime_graph(artifact).kernels] == [k.op for k in plain.kernels]


def test_inlined_functions_have_kernels_too():
    artifact = model_from_text(
        "hard (float[n,8] input) => (float[n,8] output) { x = HardSwish(input) y = HardSwish(x) output = Neg(y) }",
        {},
    )
    assert len(runtime_graph(artifact).kernels) >= 3


def test_the_geometry_of_a_matrix_product_has_its_rows():
    import numpy as np

    artifact = model_from_text(
        "tokens (float[n,7,16] input) => (float[n,7,5] output) { output = MatMul(input, w) }",
        {"w": np.ones((16, 5), np.float32)},
    )
    (kernel,) = [k for k in runtime_graph(artifact).kernels if k.macs]
    assert kernel.kind == "fully_connected"
    assert kernel.macs == 7 * 16 * 5
    assert (kernel.geometry.in_channels, kernel.geometry.out_channels) == (16, 5)
    assert kernel.geometry.out_size == (7, 1)


def test_a_model_that_cannot_be_loaded_raises():
    with pytest.raises(EvaluationError, match="cannot load"):
        runtime_graph(
            model_from_text("odd (float[n,8] input) => (float[n,8] output) { output = Conv(input) }", {})
        )


def test_weights_that_only_the_bodies_of_loops_and_branches_read_are_counted():
    text = """g (float[n, 16] input) => (float[n, 16] output) {
        x = Relu(input)
        total = ReduceSum <keepdims = 0> (x)
        flag = Cast <to = 9> (total)
        output = If(flag) <
            then_branch = yes () => (float[n, 16] a) <float[16, 16] inner = INNER> {
                b = MatMul(x, outer)
                a = MatMul(b, inner)
            },
            else_branch = no () => (float[n, 16] c) { c = Add(x, small) }
        >
    }""".replace("INNER", "{" + ",".join(["0.5"] * 256) + "}")
    stored = {"outer": np.ones((16, 16), np.float32), "small": np.ones(16, np.float32)}
    graph = runtime_graph(model_from_text(text, stored))
    assert graph.weight_bytes == 4 * (256 + 256 + 16)
    assert next(k for k in graph.kernels if k.op.startswith("If")).weight_bytes == graph.weight_bytes
