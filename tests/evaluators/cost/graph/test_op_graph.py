from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from evaluators.cost.graph import op_graph
from evaluators.testing import model_from_text, tiny_model
from spaces.errors import EvaluationError
from spaces.stages.artifact import Artifact, InputSpec, Step

MLPERF_TINY = Path(__file__).parents[4].parent / "shared/data/mlperf_tiny"


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


def test_relu_and_bias_are_fused_and_views_are_free():
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
    assert conv.weight_bytes == kernel_bytes + 4 * 4  # the packed integers, and one scale per channel
    # The pool computes in floating point, so the conv's output has to be dequantized for it.
    assert (dequantize.op, dequantize.input_bytes, dequantize.output_bytes) == (
        "DequantizeLinear",
        256,
        4 * 256,
    )
    assert pool.inputs == dequantize.outputs
    assert dense.dtype == "float32"
    assert graph.inputs == ("input_quantized",)


def test_weight_only_quantization_leaves_a_float_kernel():
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


def test_quantizing_again_with_the_same_parameters_is_free():
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


def test_unknown_operators_are_counted_and_listed():
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


def test_a_transpose_of_the_input_is_not_executed():
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


def test_a_fixed_batch_counts_with_all_its_examples():
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


def test_dead_branches_do_not_count_unless_the_framework_runs_them():
    model = model_from_text(
        """g (float[n,8] input) => (float[n,4] output) {
            dead = MatMul(input, wide)
            deader = Relu(dead)
            flat = Flatten(input)
            product = MatMul(flat, weight)
            output = Relu(product)
        }""",
        {"wide": zeros(8, 100), "weight": zeros(8, 4)},
    )
    graph, eager = op_graph(model), op_graph(model, fusion="eager")
    assert [k.nodes for k in graph.kernels] == [("product", "output")]
    assert (graph.macs, graph.weight_bytes) == (32, 128)
    assert [k.op for k in eager.kernels] == ["MatMul", "Relu", "MatMul", "Relu"]
    assert (eager.macs, eager.weight_bytes) == (832, 3328)
    assert eager.kernels[2].inputs == ("input",)  # views stay free


def test_eager_frameworks_run_quantize_nodes_and_compute_in_floating_point():
    graph = op_graph(tiny_model(weight_bits=8), fusion="eager")
    assert [k.op for k in graph.kernels] == [
        *("QuantizeLinear", "DequantizeLinear", "Conv", "Relu", "QuantizeLinear", "DequantizeLinear"),
        *("GlobalAveragePool", "Gemm"),
    ]
    assert {k.dtype for k in graph.kernels} == {"float32"}
    assert graph.macs == op_graph(tiny_model()).macs


BRANCHES = """<ir_version: 10, opset_import: ["": 21]>
g (float[n,8] input{flag}) => (float[n,8] output) <float[8,8] w{stored}> {{
    ran = If(c) <then_branch = t () => (float[1,8] a) {{ a = Sigmoid(input) }},
                 else_branch = e () => (float[1,8] b) {{ h = MatMul(input, w) b = Tanh(h) }}>
    output = Relu(ran)
}}"""


def with_weight(text, shape=(8,)):
    """Parses a model whose declared but empty `w` is filled with zeros."""
    model = parser.parse_model(text)
    for value in list(model.graph.value_info):
        if value.name == "w":
            dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
            model.graph.initializer.append(onnx.numpy_helper.from_array(zeros(*dims), "w"))
            model.graph.value_info.remove(value)
    return Artifact.onnx(model, InputSpec(shape, model.graph.input[0].name))


def test_readers_in_branches_count():
    text = """g (float[n,8] input, bool c) => (float[n,8] output) {
        a = MatMul(input, w)
        r = Relu(a)
        output = If(c) <then_branch = t () => (float[n,8] u) { u = Add(a, r) },
                       else_branch = e () => (float[n,8] v) { v = Neg(r) }>
    }"""
    ops = [kernel.op for kernel in op_graph(model_from_text(text, {"w": zeros(8, 8)})).kernels]
    assert ops == ["MatMul", "Relu", "Add"]  # both live; no fusion, because the branch reads `a`, too


def test_if_counts_as_its_more_expensive_branch():
    graph = op_graph(with_weight(BRANCHES.format(flag=", bool c", stored="")))
    assert [k.op for k in graph.kernels] == ["MatMul", "Tanh", "Relu"]
    assert (graph.macs, graph.weight_bytes, graph.unknown) == (64, 256, {})
    assert graph.kernels[-1].inputs == graph.kernels[-2].outputs


@pytest.mark.parametrize(("value", "ops"), [(1, ["Sigmoid", "Relu"]), (0, ["MatMul", "Tanh", "Relu"])])
def test_if_with_a_constant_condition_counts_as_the_branch_that_runs(value, ops):
    graph = op_graph(with_weight(BRANCHES.format(flag="", stored=f", bool c = {{{value}}}")))
    assert [k.op for k in graph.kernels] == ops


LOOP = """<ir_version: 10, opset_import: ["": 21]>
g (float[n,8] input{given}) => (float[n,8] output, float[k,m,8] rows) <float[8,8] w{stored}> {{
    last, rows = Loop({most}, {start}, input) <body = b (int64 i, bool go, float[1,8] x) => (bool on, float[1,8] y, float[1,8] row) {{
        {on}
        h = MatMul(x, w)
        y = Tanh(h)
        row = Sigmoid(y)
    }}>
    output = Relu(last)
}}"""


def test_loop_with_a_constant_count_is_unrolled():
    text = LOOP.format(
        given="", stored=", int64 n_rounds = {3}", most="n_rounds", start="", on="on = Identity(go)"
    )
    graph = op_graph(with_weight(text))
    assert [k.op for k in graph.kernels] == ["MatMul", "Tanh", "Sigmoid"] * 3 + ["Concat", "Relu"]
    assert (graph.macs, graph.weight_bytes, graph.unknown) == (3 * 64, 256, {})
    assert graph.kernels[3].inputs == graph.kernels[1].outputs  # the state passes to the next iteration
    assert graph.tensor_bytes["rows"] == 3 * 32


@pytest.mark.parametrize(
    ("given", "stored", "most", "on"),
    [
        (", int64 n_rounds", "", "n_rounds", "on = Identity(go)"),
        ("", ", int64 n_rounds = {3}", "n_rounds", "s = ReduceSum(x) zero = Sub(s, s) on = Less(s, zero)"),
        (", bool start", "", "", "on = Identity(go)"),
    ],
)
def test_loop_with_a_data_dependent_count_counts_once_and_is_listed(given, stored, most, on):
    start = "start" if "start" in given else ""
    graph = op_graph(with_weight(LOOP.format(given=given, stored=stored, most=most, start=start, on=on)))
    assert graph.macs == 64
    assert graph.unknown == {"Loop": 1}


def test_scan_runs_once_per_row_also_inside_a_branch():
    graph = op_graph(
        with_weight(
            """<ir_version: 10, opset_import: ["": 21]>
            g (float[n,5,8] input, bool c) => (float[n,5,8] output) <float[8,8] w> {
                output = If(c) <then_branch = t () => (float[1,5,8] a) { a = Relu(input) },
                    else_branch = e () => (float[1,5,8] ys) {
                        start = Constant<value = float[1,8] {0, 0, 0, 0, 0, 0, 0, 0}>()
                        last, ys = Scan<num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
                            body = s (float[1,8] h, float[1,8] x) => (float[1,8] h2, float[1,8] y) {
                                m = MatMul(x, w)
                                h2 = Add(h, m)
                                y = Tanh(h2)
                            }>(start, input)
                    }>
            }""",
            (5, 8),
        )
    )
    first = ["Gather", "MatMul", "Tanh"]  # the state is constant there, so its Add is fused into the product
    assert [k.op for k in graph.kernels] == first + ["Gather", "MatMul", "Add", "Tanh"] * 4 + ["Concat"]
    assert graph.macs == 5 * 64
    assert graph.tensor_bytes[graph.outputs[0]] == 5 * 32


def test_functions_of_the_model_are_inlined():
    model = parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21, "mine": 1]>
        g (float[n,8] input) => (float[n,8] output) <float[8,8] w> {
            a = mine.Block(input, w)
            output = mine.Block(a, w)
        }
        <domain: "mine", opset_import: ["": 21]>
        Block (x, weight) => (y) {
            h = MatMul(x, weight)
            y = Relu(h)
        }"""
    )
    del model.graph.value_info[:]
    model.graph.initializer.append(onnx.numpy_helper.from_array(zeros(8, 8), "w"))
    graph = op_graph(Artifact.onnx(model, InputSpec((8,))))
    assert [k.op for k in graph.kernels] == ["MatMul", "MatMul"]
    assert (graph.macs, graph.weight_bytes, graph.unknown) == (128, 256, {})


def test_an_operator_of_an_unknown_domain_is_not_identified_by_its_name():
    model = parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21, "theirs": 1]>
        g (float[1,8] input) => (float[1,8] output) <float[1,8] made> {
            made = theirs.MatMul(input, input)
            output = Relu(made)
        }"""
    )
    shaped = Artifact.onnx(model, InputSpec((8,)))
    with pytest.raises(EvaluationError, match=r"'made'.* theirs\.MatMul"):
        op_graph(shaped)


def test_a_weight_with_as_many_elements_as_scales_is_still_the_weight():
    model = model_from_text(
        """g (float[n,4,4,4] input) => (float[n,4,4,4] output) {
            weight = DequantizeLinear<axis = 0>(stored, scales, zeros)
            q = QuantizeLinear(input, scale, zero)
            x = DequantizeLinear(q, scale, zero)
            output = Conv<group = 4>(x, weight)
        }""",
        {
            "stored": zeros(4, 1, 1, 1, dtype=np.int8),
            "scales": zeros(4),
            "zeros": zeros(4, dtype=np.int8),
            **GRID,
        },
    )
    graph = op_graph(model)
    (kernel,) = graph.kernels
    assert (kernel.kind, kernel.dtype, kernel.weight, kernel.weight_bits) == (
        "depthwise",
        "int8",
        "stored",
        8,
    )
    assert kernel.constants == ("stored", "scales", "zeros")
    assert (kernel.weight_bytes, graph.weight_bytes) == (4 + 16 + 4, 4 + 16 + 4 + 4 + 1)


def test_shape_computations_are_no_kernels():
    model = model_from_text(
        """g (float[n,2,4] input) => (float[n,8] output) {
            shape = Shape<end = 1>(input)
            wanted = Concat<axis = 0>(shape, rest)
            output = Reshape(input, wanted)
        }""",
        {"rest": np.asarray([8], np.int64)},
    )
    graph = op_graph(model)
    assert (graph.kernels, graph.outputs, graph.weight_bytes) == ((), ("input",), 8)


class TestBadInput:
    def text(self, inputs="float[n,3,m] input", output="float[n,3,m] output"):
        return model_from_text(f"g ({inputs}) => ({output}) {{ output = Relu(input) }}", {}).proto()

    def test_axis_that_differs_from_the_file(self):
        artifact = Artifact.onnx(self.text("float[n,3,32] input"), InputSpec((3, 28)))
        expected = r"axis 2 of input 'input' is 32 .*model\.input_shape=\[3, 28\] says 28; give model\.input_shape=\[3, 32\]"
        with pytest.raises(EvaluationError, match=expected):
            op_graph(artifact)

    def test_wrong_number_of_axes(self):
        with pytest.raises(EvaluationError, match=r"'input' has 3 axes, batch included, .* gives 4"):
            op_graph(Artifact.onnx(self.text(), InputSpec((1, 3, 8))))

    def test_no_such_input(self):
        with pytest.raises(EvaluationError, match=r"no input 'image'.*it has 'input'"):
            op_graph(Artifact.onnx(self.text(), InputSpec((3, 8), "image")))

    def test_dynamic_axis_of_another_input(self):
        model = self.text("float[n,3,m] input, float[n,length] mask")
        with pytest.raises(EvaluationError, match=r"axis 1 of input 'mask' \(length\) is dynamic; fix it"):
            op_graph(Artifact.onnx(model, InputSpec((3, 8))))

    def test_axis_with_a_known_name_is_known(self):
        model = self.text("float[n,3,m] input, float[n,m] mask")
        graph = op_graph(Artifact.onnx(model, InputSpec((3, 8))))
        assert graph.inputs == ("input", "mask")
        assert graph.tensor_bytes == {"input": 96, "mask": 32, "output": 96}

    def test_input_without_a_shape(self):
        model = self.text("float[n,3,m] input, float[n,m] mask")
        model.graph.input[1].type.tensor_type.ClearField("shape")
        with pytest.raises(EvaluationError, match="input 'mask' has no shape"):
            op_graph(Artifact.onnx(model, InputSpec((3, 8))))
        model = self.text()
        model.graph.input[0].type.tensor_type.ClearField("shape")
        assert op_graph(Artifact.onnx(model, InputSpec((3, 8)))).tensor_bytes["output"] == 96

    def test_stages_name_the_model(self):
        artifact = Artifact.onnx(self.text(), InputSpec((9,)), (Step("export"), Step("quantize")))
        with pytest.raises(EvaluationError, match="after export > quantize"):
            op_graph(artifact)

    def test_shapes_that_contradict_each_other(self):
        model = model_from_text(
            "g (float[n,8] input) => (float[n,4] output) { output = MatMul(input, weight) }",
            {"weight": zeros(7, 4)},
        )
        with pytest.raises(EvaluationError, match=r"'output' cannot be found.*MatMul.*Incompatible"):
            op_graph(model)


def test_shapes_that_cannot_be_inferred_raise():
    model = model_from_text(
        """g (float[n,8] input) => (float[n,8] output) {
            output = com.microsoft.NoSuchOperator(input)
        }""",
        {},
    ).proto()
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    with pytest.raises(EvaluationError, match="cannot be found"):
        op_graph(Artifact.onnx(model, InputSpec((8,))))
