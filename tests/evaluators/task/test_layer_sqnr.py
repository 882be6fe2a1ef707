import numpy as np
import pytest

from evaluators.base import Reference
from evaluators.task.layer_sqnr import MAX_SQNR_DB, layer_sqnr, sqnr_db
from evaluators.task.layers import layers_of
from evaluators.testing import RandomSplit, model_from_text, tiny_model
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import noise_split

NO_OUTPUTS = np.zeros((0, 0), np.float32)


def compare(candidate, reference=None, n_images=6, shape=(3, 8, 8)):
    reference = Reference(tiny_model() if reference is None else reference, NO_OUTPUTS)
    return layer_sqnr(candidate, reference, RandomSplit(8, shape), n_images, threads=1)


def test_decibels():
    assert sqnr_db(100.0, 1.0) == pytest.approx(20)
    assert sqnr_db(1.0, 0.0) == sqnr_db(0.0, 0.0) == MAX_SQNR_DB
    assert sqnr_db(0.0, 1.0) == -MAX_SQNR_DB


def test_the_float_model_itself_differs_nowhere():
    assert compare(tiny_model()) == [
        {"layer": "kernel", "op": "Conv", "weight_sqnr_db": 200.0, "output_sqnr_db": 200.0, "float": True},
        {
            "layer": "dense_weight",
            "op": "Gemm",
            "weight_sqnr_db": 200.0,
            "output_sqnr_db": 200.0,
            "float": True,
        },
    ]


def test_readers_in_subgraphs_count():
    text = """g (float[n,3] input, bool go) => (float[n,3] output) {
        a = Gemm(input, w)
        r = Relu(a)
        b = If(go) <then_branch = t () => (float[n,3] u) { u = Neg(a) }, else_branch = e () => (float[n,3] v) { v = Neg(a) }>
        output = Add(r, b)
    }"""
    model = model_from_text(text, {"w": np.eye(3, dtype=np.float32)}).proto()
    assert [layer.result for layer in layers_of(model)] == ["a"]  # what the branches read, too


@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_weights_have_the_noise_of_their_rounding(bits):
    conv, dense = compare(tiny_model(bits))
    stored = {i.name: i for i in tiny_model(bits).proto().graph.initializer}
    from onnx import numpy_helper

    integers = numpy_helper.to_array(stored["kernel_quantized"]).astype(np.float32)
    scale = numpy_helper.to_array(stored["kernel_scale"])
    kernel = np.random.default_rng(7).normal(size=(4, 3, 3, 3)).astype(np.float32)
    noise = kernel - integers * scale[:, None, None, None]
    assert conv["weight_sqnr_db"] == pytest.approx(
        10 * np.log10(np.sum(kernel**2) / np.sum(noise**2)), abs=1e-3
    )
    assert conv["float"] is False
    assert 5 < conv["output_sqnr_db"] < conv["weight_sqnr_db"]  # the input's rounding adds noise
    assert dense["float"] is True
    assert dense["weight_sqnr_db"] == 200.0
    assert dense["output_sqnr_db"] < 60  # its input has noise


def test_fewer_bits_are_further_from_float():
    eight, four = compare(tiny_model(8))[0], compare(tiny_model(4))[0]
    assert eight["weight_sqnr_db"] > four["weight_sqnr_db"] + 20
    assert eight["output_sqnr_db"] > four["output_sqnr_db"]


def test_layers_of_another_shape_have_no_ratio_and_absent_layers_no_row():
    text = "g (float[n,8] input) => (float[n,{out}] output) {{ output = MatMul(input, weight) }}"
    random = np.random.default_rng(0)
    wide = model_from_text(text.format(out=6), {"weight": random.normal(size=(8, 6)).astype(np.float32)})
    slim = model_from_text(text.format(out=4), {"weight": random.normal(size=(8, 4)).astype(np.float32)})
    (layer,) = compare(slim, wide, shape=(8,))
    assert (layer["weight_sqnr_db"], layer["output_sqnr_db"]) == (None, None)
    nothing = model_from_text("g (float[n,8] input) => (float[n,8] output) { output = Relu(input) }", {})
    assert compare(nothing, wide, shape=(8,)) == []


def test_layers_are_found_by_their_weights_where_tensors_are_renamed():
    random = np.random.default_rng(0)
    stored = {name: random.normal(size=(8, 8)).astype(np.float32) for name in ("first", "second")}
    text = """g (float[n,8] input) => (float[n,8] output) {{
        {a} = MatMul(input, first)
        output = MatMul({a}, second)
    }}"""
    layers = compare(
        model_from_text(text.format(a="renamed"), stored),
        model_from_text(text.format(a="a"), stored),
        shape=(8,),
    )
    assert [(layer["layer"], layer["output_sqnr_db"]) for layer in layers] == [
        ("first", 200.0),
        ("second", 200.0),
    ]


def test_a_weight_that_is_used_twice_is_two_layers():
    stored = {"weight": np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)}
    model = model_from_text(
        """g (float[n,8] input) => (float[n,8] output) {
            a = MatMul(input, weight)
            output = MatMul(a, weight)
        }""",
        stored,
    )
    assert [layer["layer"] for layer in compare(model, model, shape=(8,))] == ["weight", "weight"]


def test_qoperator_layers_are_compared_like_qdq_ones():
    random = np.random.default_rng(0)
    weight = random.normal(size=(4, 3, 1, 1)).astype(np.float32)
    scale = (np.abs(weight).max(axis=(1, 2, 3)) / 127).astype(np.float32)
    grid = {"grid": np.asarray(0.05, np.float32), "zero": np.asarray(0, np.int8)}
    stored = grid | {
        "weight_quantized": np.rint(weight / scale[:, None, None, None]).astype(np.int8),
        "scale": scale,
        "zeros": np.zeros(4, np.int8),
    }
    reference = model_from_text(
        "g (float[n,3,8,8] input) => (float[n,4,8,8] output) { output = Conv(input, weight) }",
        {"weight": weight},
    )
    qoperator = model_from_text(
        """g (float[n,3,8,8] input) => (float[n,4,8,8] output) {
            q = QuantizeLinear(input, grid, zero)
            y = QLinearConv(q, grid, zero, weight_quantized, scale, zeros, grid, zero)
            output = DequantizeLinear(y, grid, zero)
        }""",
        stored,
    )
    qdq = model_from_text(
        """g (float[n,3,8,8] input) => (float[n,4,8,8] output) {
            q = QuantizeLinear(input, grid, zero)
            x = DequantizeLinear(q, grid, zero)
            w = DequantizeLinear<axis = 0>(weight_quantized, scale, zeros)
            y = Conv(x, w)
            y_q = QuantizeLinear(y, grid, zero)
            output = DequantizeLinear(y_q, grid, zero)
        }""",
        stored,
    )
    (found,), (wanted,) = compare(qoperator, reference), compare(qdq, reference)
    assert found["float"] is False
    assert 30 < found["weight_sqnr_db"] == pytest.approx(wanted["weight_sqnr_db"])
    assert found["output_sqnr_db"] == pytest.approx(wanted["output_sqnr_db"], abs=0.1)


@pytest.mark.usefixtures("exact_integer_kernels")
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_a_transposed_layer_of_the_qoperator_format_has_its_channels_first(granularity):
    text = "g (float[n,8] input) => (float[n,6] output) { output = Gemm<transB = 1>(input, weight, bias) }"
    random = np.random.default_rng(0)
    stored = {"weight": random.normal(size=(6, 8)), "bias": random.normal(size=6)}
    dense = model_from_text(text, {name: value.astype(np.float32) for name, value in stored.items()})
    stage, context = QuantizeStage(), StageContext(noise_split((8,), 16), Cache())
    found = {
        form: compare(
            stage.apply(dense, stage.defaults() | {"format": form, "granularity": granularity}, context),
            dense,
            shape=(8,),
        )
        for form in ("qdq", "qoperator")
    }
    (wanted,), (got,) = found["qdq"], found["qoperator"]
    assert got["weight_sqnr_db"] == pytest.approx(wanted["weight_sqnr_db"], abs=1e-6)
    assert got["output_sqnr_db"] == pytest.approx(wanted["output_sqnr_db"], abs=0.1)


def test_a_fixed_batch_uses_whole_batches():
    assert compare(tiny_model(8), tiny_model(batch=4))[0]["output_sqnr_db"] > 5
    assert compare(tiny_model(batch=4), n_images=3)[0]["output_sqnr_db"] is None
