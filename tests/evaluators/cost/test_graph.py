from pathlib import Path

import numpy as np
import pytest

from evaluators.cost.graph import op_graph
from evaluators.testing import model_from_text, tiny_model
from spaces.artifact import Artifact, InputSpec
from spaces.errors import EvaluationError

MLPERF_TINY = Path(__file__).parents[3].parent / "shared/data/mlperf_tiny"


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


GRID = {"scale": np.asarray(0.1, np.float32), "zero": np.asarray(0, np.int8)}


@pytest.mark.parametrize(
    ("file", "shape", "macs"),
    [
        ("ad01_fp32.onnx", (640,), 264_192),
        ("pretrainedResnet.onnx", (32, 32, 3), 12_501_632),
        ("kws_ref_model_float32.onnx", (49, 10, 1), 2_656_768),
        ("vww_96_float.onnx", (96, 96, 3), 7_489_664),
    ],
)
def test_macs_of_published_networks_are_exact(file, shape, macs):
    path = MLPERF_TINY / file
    if not path.exists():
        pytest.skip(f"{path} is absent")
    graph = op_graph(Artifact.onnx(path.read_bytes(), InputSpec(shape, "input_1")))
    assert graph.macs == macs
    assert graph.unknown == {}
    assert {k.dtype for k in graph.kernels if k.macs} == {"float32"}


def test_relu_and_bias_melt_and_views_are_free():
    graph = op_graph(tiny_model())
    assert [(k.op, k.kind, k.dtype) for k in graph.kernels] == [
        ("Conv", "conv", "float32"),
        ("GlobalAveragePool", "pool", "float32"),
        ("Gemm", "fully_connected", "float32"),
    ]
    conv, pool, dense = graph.kernels
    assert (conv.input_bytes, conv.output_bytes, conv.weight_bytes) == (4 * 192, 4 * 256, 4 * 108)
    assert (pool.macs, dense.macs) == (0, 20)
    assert dense.inputs == pool.outputs


@pytest.mark.parametrize(("bits", "dtype", "kernel_bytes"), [(8, "int8", 108), (4, "int4", 54)])
def test_conv_between_q_and_dq_is_one_integer_kernel(bits, dtype, kernel_bytes):
    graph = op_graph(tiny_model(weight_bits=bits))
    conv, dequantize, pool, dense = graph.kernels
    assert (conv.op, conv.dtype, conv.input_bytes, conv.output_bytes) == ("Conv", dtype, 192, 256)
    assert conv.weight_bytes == kernel_bytes + 4 * 4  # the integers, packed, and a scale a channel
    # The pool computes in floating point, so what the conv wrote has to be dequantized for it.
    assert (dequantize.op, dequantize.input_bytes, dequantize.output_bytes) == (
        "DequantizeLinear",
        256,
        4 * 256,
    )
    assert pool.inputs == dequantize.outputs
    assert dense.dtype == "float32"
    assert graph.inputs == ("input_quantized",)


def test_weights_quantized_alone_leave_a_float_kernel():
    model = model_from_text(
        """g (float[n,8] input) => (float[n,4] output) {
            weight = DequantizeLinear(stored, scale, zero)
            output = MatMul(input, weight)
        }""",
        {"stored": zeros(8, 4, dtype=np.int8), **GRID},
    )
    (kernel,) = op_graph(model).kernels
    assert (kernel.dtype, kernel.weight_bytes, kernel.macs) == ("float32", 32 + 4 + 1, 32)


def test_sixteen_bit_activations_make_an_int16_kernel():
    model = model_from_text(
        """g (float[n,8] input) => (float[n,4] output) {
            weight = DequantizeLinear(stored, scale, zero)
            q = QuantizeLinear(input, scale, wide_zero)
            x = DequantizeLinear(q, scale, wide_zero)
            output = MatMul(x, weight)
        }""",
        {"stored": zeros(8, 4, dtype=np.int8), "wide_zero": np.asarray(0, np.int16), **GRID},
    )
    (kernel,) = op_graph(model).kernels
    assert (kernel.dtype, kernel.input_bytes) == ("int16", 16)


def test_residual_addition_on_integers_reads_two_and_writes_one():
    model = model_from_text(
        """g (float[n,8] input) => (float[n,8] output) {
            q = QuantizeLinear(input, scale, zero)
            x = DequantizeLinear(q, scale, zero)
            weight = DequantizeLinear(stored, scale, zero)
            y = MatMul(x, weight)
            y_q = QuantizeLinear(y, scale, zero)
            y_dq = DequantizeLinear(y_q, scale, zero)
            sum = Add(x, y_dq)
            positive = Relu(sum)
            sum_q = QuantizeLinear(positive, scale, zero)
            output = DequantizeLinear(sum_q, scale, zero)
        }""",
        {"stored": zeros(8, 8, dtype=np.int8), **GRID},
    )
    graph = op_graph(model)
    assert [k.op for k in graph.kernels] == ["MatMul", "Add"]
    assert graph.kernels[1].inputs == ("q", "y_q")
    assert graph.kernels[1].outputs == graph.outputs == ("sum_q",)
    assert set(graph.tensor_bytes.values()) == {8}


def test_quantizing_again_with_the_same_grid_is_free():
    model = model_from_text(
        """g (float[n,2,4] input) => (float[n,4] output) {
            q = QuantizeLinear(input, scale, zero)
            x = DequantizeLinear(q, scale, zero)
            flat = Flatten(x)
            q2 = QuantizeLinear(flat, scale, zero)
            x2 = DequantizeLinear(q2, scale, zero)
            weight = DequantizeLinear(stored, scale, zero)
            output = MatMul(x2, weight)
        }""",
        {"stored": zeros(8, 4, dtype=np.int8), **GRID},
    )
    (kernel,) = op_graph(model).kernels
    assert (kernel.op, kernel.dtype, kernel.inputs) == ("MatMul", "int8", ("q",))


@pytest.mark.parametrize(
    ("group", "shape", "kind", "macs"),
    [
        (1, (6, 4, 3, 3), "conv", 6 * 16 * 36),
        (1, (6, 4, 1, 1), "pointwise", 6 * 16 * 4),
        (4, (4, 1, 3, 3), "depthwise", 4 * 16 * 9),
        (2, (6, 2, 3, 3), "conv", 6 * 16 * 18),
    ],
)
def test_kernel_classes_of_convolutions(group, shape, kind, macs):
    pad = shape[2] // 2
    model = model_from_text(
        f"""g (float[n,4,4,4] input) => (float[n,{shape[0]},4,4] output) {{
            output = Conv<group = {group}, pads = [{pad}, {pad}, {pad}, {pad}]>(input, weight)
        }}""",
        {"weight": zeros(*shape)},
    )
    (kernel,) = op_graph(model).kernels
    assert (kernel.kind, kernel.macs) == (kind, macs)


def test_transposed_convolution_counts_every_input_element():
    model = model_from_text(
        """g (float[n,2,3,3] input) => (float[n,5,m,m] output) {
            output = ConvTranspose<strides = [2, 2]>(input, weight)
        }""",
        {"weight": zeros(2, 5, 2, 2)},
    )
    assert op_graph(model).macs == 2 * 9 * 5 * 4


def test_qoperator_kernels_and_contrib_operators_are_understood():
    model = model_from_text(
        """g (float[n,4,4,4] input) => (float[n,4,4,4] output) {
            q = QuantizeLinear(input, scale, zero)
            y = QLinearConv(q, scale, zero, weight, scale, zero, scale, zero)
            s = com.microsoft.QLinearAdd(q, scale, zero, y, scale, zero, scale, zero)
            output = DequantizeLinear(s, scale, zero)
        }""",
        {"weight": zeros(4, 4, 1, 1, dtype=np.int8), **GRID},
    )
    graph = op_graph(model)
    assert [(k.op, k.kind, k.dtype) for k in graph.kernels] == [
        ("QLinearConv", "pointwise", "int8"),
        ("QLinearAdd", "elementwise", "int8"),
    ]
    assert graph.macs == 4 * 16 * 4
    assert graph.kernels[1].output_bytes == 64
    assert graph.unknown == {}


def test_unknown_operators_are_counted_and_named():
    model = model_from_text(
        """g (float[n,8] input) => (float[n,8] output) {
            a = Hardmax(input)
            b = Hardmax(a)
            output = Relu(b)
        }""",
        {},
    )
    graph = op_graph(model)
    assert graph.unknown == {"Hardmax": 2}
    assert [k.input_bytes for k in graph.kernels] == [32, 32, 32]


def test_a_transpose_of_the_input_is_the_callers_business():
    model = model_from_text(
        """g (float[n,4,8] input) => (float[n,8,3] output) {
            swapped = Transpose<perm = [0, 2, 1]>(input)
            q = QuantizeLinear(swapped, scale, zero)
            x = DequantizeLinear(q, scale, zero)
            weight = DequantizeLinear(stored, scale, zero)
            y = MatMul(x, weight)
            output = Transpose<perm = [0, 1, 2]>(y)
        }""",
        {"stored": zeros(4, 3, dtype=np.int8), **GRID},
    )
    graph = op_graph(model)
    assert [(k.op, k.input_bytes) for k in graph.kernels] == [("MatMul", 32), ("Transpose", 96)]
    assert graph.inputs == ("q",)


def test_fixed_batch_counts_as_it_is():
    assert op_graph(tiny_model(batch=2)).macs == 2 * op_graph(tiny_model()).macs


def test_shared_weights_count_once_in_all_and_in_every_kernel():
    model = model_from_text(
        """g (float[n,8] input) => (float[n,8] output) {
            a = MatMul(input, weight)
            b = Sigmoid(a)
            output = MatMul(b, weight)
        }""",
        {"weight": zeros(8, 8), "unused": zeros(100)},
    )
    graph = op_graph(model)
    assert graph.weight_bytes == 256
    assert [k.weight_bytes for k in graph.kernels] == [256, 0, 256]


def test_shapes_that_cannot_be_found_are_an_evaluation_error():
    model = model_from_text(
        """g (float[n,8] input) => (float[n,8] output) {
            output = com.microsoft.NoSuchOperator(input)
        }""",
        {},
    ).proto()
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    with pytest.raises(EvaluationError, match="cannot be found"):
        op_graph(Artifact.onnx(model, InputSpec((8,))))
