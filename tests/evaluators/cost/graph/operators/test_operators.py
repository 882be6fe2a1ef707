"""Tests of kernel class, geometry and multiply-accumulates of single operators."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.cost.graph import op_graph
from evaluators.cost.graph.operators.einsum import einsum_macs
from evaluators.cost.graph.operators.geometry import Geometry
from evaluators.cost.graph.operators.macs import macs
from evaluators.cost.graph.operators.nodes import Node
from evaluators.cost.graph.operators.operators import is_known, kind_of
from evaluators.cost.graph.operators.tensors import Tensor
from evaluators.devices.kinds import KINDS
from evaluators.testing import model_from_text


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def kernels_of(text, **stored):
    return op_graph(model_from_text(text, stored)).kernels


def only_kernel(text, **stored):
    (kernel,) = kernels_of(text, **stored)
    return kernel


def node(op, inputs, outputs=("y",), domain="com.microsoft", **attributes):
    return Node(op, op, domain, tuple(inputs), tuple(outputs), attributes)


def tensors(**shapes):
    return {name: Tensor(shape, "float") for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("call", "weight", "out_shape", "geometry", "n_macs"),
    [
        (
            "Conv<strides = [2, 1], pads = [1, 0, 1, 0], group = 2>",
            (6, 2, 3, 1),
            (1, 6, 4, 5),
            Geometry(4, 6, (3, 1), (2, 1), 2, (8, 5), (4, 5)),
            6 * 20 * 2 * 3,
        ),
        ("Conv", (4, 4, 1, 1), (1, 4, 8, 5), Geometry(4, 4, in_size=(8, 5), out_size=(8, 5)), 4 * 40 * 4),
        (
            "Conv<group = 4>",
            (8, 1, 2, 2),
            (1, 8, 7, 4),
            Geometry(4, 8, (2, 2), groups=4, in_size=(8, 5), out_size=(7, 4)),
            8 * 28 * 4,
        ),
        (
            "ConvTranspose<strides = [2, 2]>",
            (4, 3, 2, 2),
            (1, 3, 16, 10),
            Geometry(4, 3, (2, 2), (2, 2), 1, (8, 5), (16, 10)),
            4 * 40 * 3 * 4,
        ),
    ],
)
def test_convolutions(call, weight, out_shape, geometry, n_macs):
    kernel = only_kernel(
        f"g (float[n,4,8,5] input) => (float[n,c,h,w] output) {{ output = {call}(input, weight) }}",
        weight=zeros(*weight),
    )
    assert (kernel.geometry, kernel.macs, kernel.elements) == (geometry, n_macs, np.prod(out_shape))
    assert (kernel.weight, kernel.weight_bits, kernel.activation_bits) == ("weight", 32, 32)
    assert kernel.constants == ("weight",)


def test_convolution_over_one_axis_has_height_one():
    kernel = only_kernel(
        "g (float[n,6,128] input) => (float[n,16,l] output) { output = Conv<strides = [2]>(input, weight) }",
        weight=zeros(16, 6, 5),
    )
    assert (kernel.kind, kernel.macs) == ("conv", 16 * 62 * 30)
    assert kernel.geometry == Geometry(6, 16, (1, 5), (1, 2), 1, (1, 128), (1, 62))


def test_convolution_over_three_axes_multiplies_the_first_two():
    kernel = only_kernel(
        "g (float[n,2,4,5,6] input) => (float[n,3,a,b,c] output) { output = Conv(input, weight) }",
        weight=zeros(3, 2, 2, 2, 2),
    )
    assert kernel.geometry == Geometry(2, 3, (4, 2), (1, 1), 1, (20, 6), (12, 5))
    assert kernel.macs == 3 * 60 * 16


@pytest.mark.parametrize(
    ("call", "weight", "n_macs"),
    [
        ("Gemm<transB = 1>(input, weight)", (3, 8), 24),
        ("MatMul(input, weight)", (8, 3), 24),
    ],
)
def test_matrix_products_have_rows_and_an_inner_size(call, weight, n_macs):
    kernel = only_kernel(
        f"g (float[n,8] input) => (float[n,3] output) {{ output = {call} }}", weight=zeros(*weight)
    )
    assert (kernel.kind, kernel.macs) == ("fully_connected", n_macs)
    assert kernel.geometry == Geometry(8, 3, in_size=(1, 1), out_size=(1, 1))


def test_products_of_activations_are_attention():
    first, softmax, second = kernels_of(
        """g (float[n,2,7,4] input) => (float[n,2,7,4] output) {
            scores = Einsum<equation = "bhqd,bhkd->bhqk">(input, input)
            shares = Softmax(scores)
            output = MatMul(shares, input)
        }"""
    )
    assert [k.kind for k in (first, softmax, second)] == ["attention", "normalization", "attention"]
    assert first.macs == second.macs == 2 * 7 * 7 * 4
    assert second.geometry == Geometry(7, 4, in_size=(14, 1), out_size=(14, 1))
    assert (second.weight, second.weight_bits) == ("", 0)


@pytest.mark.parametrize(
    ("op", "gates", "hidden", "outputs"), [("LSTM", 4, 5, 3), ("GRU", 3, 5, 2), ("RNN", 1, 5, 2)]
)
def test_recurrent_layers_use_each_weight_once_per_step(op, gates, hidden, outputs):
    names = ", ".join(["output", *(f"o{i}" for i in range(outputs - 1))])
    kernel = only_kernel(
        f"""g (float[n,2,6] input) => (float[n,2,2,5] output) {{
            {names} = {op}<hidden_size = {hidden}, direction = "bidirectional">(input, w, r)
        }}""",
        w=zeros(2, gates * hidden, 6),
        r=zeros(2, gates * hidden, hidden),
    )
    assert (kernel.kind, kernel.macs) == ("recurrent", 2 * 2 * gates * hidden * (6 + hidden))
    assert kernel.geometry == Geometry(6, 10, in_size=(2, 1), out_size=(2, 1))
    assert kernel.weight_bytes == 4 * 2 * gates * hidden * (6 + hidden)


def test_layers_without_their_first_output():
    first, second, total = kernels_of(
        """g (float[n,1,6] input) => (float[1,n,5] output) {
            none, a = LSTM<hidden_size = 5>(input, w, r)
            none_either, b = LSTM<hidden_size = 5>(input, w, r)
            output = Mul(a, b)
        }""".replace("none_either", '""').replace("none", '""'),
        w=zeros(1, 20, 6),
        r=zeros(1, 20, 5),
    )
    assert first.macs == second.macs == 20 * 11
    assert (first.name, first.outputs, total.inputs) == ("a", ("a",), ("a", "b"))


def test_pools_and_reductions_have_a_window():
    pool, whole, mean = kernels_of(
        """g (float[n,4,8,8] input) => (float[n,4] output) {
            a = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(input)
            b = GlobalAveragePool(a)
            output = ReduceMean<keepdims = 0>(b, axes)
        }""",
        axes=np.asarray([2, 3], np.int64),
    )
    assert pool.geometry == Geometry(4, 4, (2, 2), (2, 2), 4, (8, 8), (4, 4))
    assert whole.geometry == Geometry(4, 4, (4, 4), (1, 1), 4, (4, 4), (1, 1))
    assert (mean.kind, mean.macs) == ("pool", 0)


EQUATIONS = [
    ("ij,jk->ik", [(3, 4), (4, 5)], 60),
    ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)], 120),
    ("...ij,...jk", [(2, 1, 3, 4), (7, 4, 5)], 2 * 7 * 60),
    ("b...d,d->b...", [(2, 3, 5, 4), (4,)], 2 * 15 * 4),
    ("ij,ij->ij", [(3, 4), (3, 4)], 0),  # an element-wise product, as Mul
    ("i,j->ij", [(3,), (4,)], 0),
    ("ij->ji", [(3, 4)], 0),
    ("ijl,jk->ik", [(3, 4, 9), (4, 5)], 60),  # l is summed out first
    ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)], 24 + 40),  # from left to right
    ("ij,jk", [(3, 4), (4, 5)], 60),
]


@pytest.mark.parametrize(("equation", "shapes", "expected"), EQUATIONS)
def test_einsum(equation, shapes, expected):
    assert einsum_macs(equation, shapes) == expected


@given(st.lists(st.integers(1, 5), min_size=4, max_size=4), st.permutations("bijk"))
def test_einsum_is_a_batched_matrix_product_under_any_names(sizes, letters):
    b, i, j, k = letters
    n_b, n_i, n_j, n_k = sizes
    shapes = [(n_b, n_i, n_j), (n_b, n_k, n_j)]
    assert einsum_macs(f"{b}{i}{j}, {b}{k}{j} -> {b}{i}{k}", shapes) == n_b * n_i * n_j * n_k


def test_einsum_with_a_weight_is_fully_connected():
    kernel = only_kernel(
        'g (float[n,7,4] input) => (float[n,7,5] output) { output = Einsum<equation = "bth,hk->btk">(input, weight) }',
        weight=zeros(4, 5),
    )
    assert (kernel.kind, kernel.macs, kernel.weight) == ("fully_connected", 7 * 20, "weight")


class TestAttentionLayers:
    def test_standard_with_four_axes_and_grouped_heads(self):
        shapes = tensors(q=(1, 8, 5, 16), k=(1, 2, 6, 16), v=(1, 2, 6, 12), past=(1, 2, 3, 16))
        call = node("Attention", ["q", "k", "v", "", "past"], domain="", q_num_heads=8, kv_num_heads=2)
        assert macs(call, shapes) == 8 * 5 * (6 + 3) * (16 + 12)

    def test_standard_with_three_axes(self):
        shapes = tensors(q=(2, 5, 128), k=(2, 6, 32), v=(2, 6, 24))
        call = node("Attention", ["q", "k", "v"], domain="", q_num_heads=8, kv_num_heads=2)
        assert macs(call, shapes) == 2 * 5 * 6 * 8 * (16 + 12)

    def test_of_onnxruntime_with_projections(self):
        shapes = tensors(x=(2, 5, 12), w=(12, 36), past=(2, 2, 3, 7, 4), y=(2, 5, 12))
        call = node("Attention", ["x", "w", "b", "", "past"], num_heads=3)
        assert macs(call, shapes) == 2 * 5 * (12 * 36 + (5 + 7) * 24)

    def test_multi_head(self):
        shapes = tensors(q=(2, 5, 12), k=(2, 9, 12), v=(2, 9, 8), packed=(2, 5, 3, 3, 4), y=(2, 5, 8))
        assert macs(node("MultiHeadAttention", ["q", "k", "v"]), shapes) == 2 * 5 * 9 * 20
        assert macs(node("MultiHeadAttention", ["packed"]), shapes) == 2 * 5 * 5 * 24

    def test_grouped_queries_attend_to_the_whole_cache(self):
        shapes = tensors(q=(1, 1, 64), k=(1, 1, 16), past=(1, 2, 31, 8), y=(1, 1, 64), present=(1, 2, 32, 8))
        call = node("GroupQueryAttention", ["q", "k", "k", "past", "past"], ["y", "present", "present"])
        assert macs(call, shapes) == 32 * 2 * 64
        assert macs(node("GroupQueryAttention", ["q", "k", "k", "past", "past"]), shapes) == 32 * 2 * 64

    def test_their_class_is_attention(self):
        for op in ("Attention", "MultiHeadAttention", "GroupQueryAttention", "QAttention"):
            assert kind_of(node(op, ["x"]), {}, ()) == "attention"
            assert is_known(op)


def test_the_bit_width_of_matmulnbits_is_read_from_its_attribute():
    kernel = only_kernel(
        """g (float[n,64] input) => (float[n,8] output) {
            output = com.microsoft.MatMulNBits<K = 64, N = 8, bits = 4, block_size = 32>(input, packed, scales)
        }""",
        packed=zeros(8, 2, 16, dtype=np.uint8),
        scales=zeros(16),
    )
    assert (kernel.macs, kernel.weight_bits, kernel.dtype) == (512, 4, "float32")
    assert kernel.weight_bytes == 256 + 64


def test_dynamically_quantized_products_compute_on_eight_bits():
    kernel = only_kernel(
        """g (float[n,8] input) => (float[n,4] output) {
            output = com.microsoft.DynamicQuantizeMatMul(input, weight, scale)
        }""",
        weight=zeros(8, 4, dtype=np.uint8),
        scale=np.asarray(0.1, np.float32),
    )
    assert (kernel.dtype, kernel.weight_bits, kernel.activation_bits, kernel.macs) == ("int8", 8, 32, 32)


def test_integer_convolution():
    kernel = kernels_of(
        """g (float[n,4,4,4] input) => (int32[n,2,4,4] output) {
            q, s, z = DynamicQuantizeLinear(input)
            output = ConvInteger(q, weight, z)
        }""",
        weight=zeros(2, 4, 1, 1, dtype=np.uint8),
    )[-1]
    assert (kernel.kind, kernel.dtype, kernel.macs, kernel.activation_bits) == ("pointwise", "int8", 128, 8)


def test_channels_last_and_blocked_convolutions():
    shapes = tensors(x=(1, 8, 8, 16), w=(32, 16, 3, 3), y=(1, 8, 8, 32), xb=(1, 16, 8, 8), yb=(1, 32, 8, 8))
    last = node("QLinearConv", ["x", "s", "z", "w", "s", "z"], channels_last=1, kernel_shape=(3, 3))
    nhwc = node("NhwcFusedConv", ["x", "w"], kernel_shape=(3, 3))
    blocked = node("Conv", ["xb", "w"], ["yb"], domain="com.microsoft.nchwc", kernel_shape=(3, 3))
    assert {macs(n, shapes) for n in (last, nhwc, blocked)} == {32 * 64 * 144}
    assert {kind_of(n, shapes, ("w",)) for n in (last, nhwc, blocked)} == {"conv"}


def test_a_gather_reads_only_its_rows():
    kernel = only_kernel(
        "g (int64[n,3] input) => (float[n,3,16] output) { output = Gather(table, input) }",
        table=zeros(1000, 16),
    )
    assert (kernel.kind, kernel.weight, kernel.weight_bits) == ("movement", "table", 32)
    assert kernel.weight_bytes == 3 * 16 * 4


def test_products_of_float16_are_float16_kernels():
    kernel = only_kernel(
        "g (float16[n,8] input) => (float16[n,4] output) { output = MatMul(input, weight) }",
        weight=zeros(8, 4, dtype=np.float16),
    )
    assert (kernel.dtype, kernel.weight_bits, kernel.activation_bits) == ("float16", 16, 16)


@pytest.mark.parametrize(
    ("op", "kind"),
    [
        ("LayerNormalization", "normalization"),
        ("SkipSimplifiedLayerNormalization", "normalization"),
        ("Transpose", "movement"),
        ("ReorderOutput", "movement"),
        ("QuantizeLinear", "quantize"),
        ("QLinearAdd", "elementwise"),
        ("NoSuchThing", "other"),
    ],
)
def test_kernel_classes(op, kind):
    assert kind in KINDS
    assert kind_of(node(op, ["x"]), {}, ()) == kind
    assert is_known(op) == (kind != "other")
