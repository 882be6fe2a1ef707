"""Weights of LSTM, GRU and RNN are stored as integers, by every rule, and the rest of the network is quantized as ever."""

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from spaces.models.layers import layer_names, recurrent_layers
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import noise_split

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
HIDDEN, WIDTH, STEPS = 24, 6, 7
KINDS = [(op, direction) for op in GATES for direction in ("forward", "bidirectional")]


def recurrent(b, x, name, op, direction, n_in, last=True):
    """Adds a recurrent node over `(steps, batch, n_in)`; returns its last hidden state, or all of its steps."""
    n = 2 if direction == "bidirectional" else 1
    w, r = (
        b.constant(
            f"{name}.{part}", (b.rng.standard_normal((n, GATES[op] * HIDDEN, width)) / 3).astype(np.float32)
        )
        for part, width in (("w", n_in), ("r", HIDDEN))
    )
    bias = b.constant(
        f"{name}.b", (b.rng.standard_normal((n, 2 * GATES[op] * HIDDEN)) / 5).astype(np.float32)
    )
    outputs = ["", f"{name}_last"] if last else [f"{name}_all"]
    node = b.op(op, [x, w, r, bias], outputs[0], direction=direction, hidden_size=HIDDEN)
    b.nodes[-1].output[:], b.nodes[-1].name = outputs, f"node_{name}"
    assert node == outputs[0]
    return outputs[-1]


@pytest.fixture
def network(build):
    """Builds a convolution, a recurrent node over its columns, and a linear layer."""

    def make(op="LSTM", direction="forward", stem=True):
        b = build((WIDTH, STEPS))
        x = "input"
        if stem:
            weight = b.constant("stem.weight", b.rng.standard_normal((WIDTH, WIDTH, 3)).astype(np.float32))
            x = b.op("Conv", [x, weight, b.bias("stem.bias", WIDTH)], "stem_out", pads=[1, 1])
        x = b.op("Transpose", [x], "turned", perm=[2, 0, 1])
        x = recurrent(b, x, "cell", op, direction, WIDTH)
        n = HIDDEN * (1 + (direction == "bidirectional"))
        x = b.op(
            "Reshape",
            [b.op("Transpose", [x], "back", perm=[1, 0, 2]), b.constant("s", np.array([0, n]))],
            "f",
        )
        return b.artifact(b.linear(x, "head", n, 4))

    return make


def context(n=32):
    return StageContext(noise_split((WIDTH, STEPS), n), Cache())


def error(run, artifact, made, optimize=False):
    """Returns the relative error; by integer kernels, which may saturate, if optimized."""
    inputs = noise_split((WIDTH, STEPS), 32).inputs
    wanted, got = run(artifact, inputs), run(made, inputs, optimize)
    return np.sqrt(np.mean((got - wanted) ** 2) / np.mean(wanted**2))


def stored(made):
    return {i.name: i for i in made.proto().graph.initializer}


@pytest.mark.parametrize(("op", "direction"), KINDS)
@pytest.mark.parametrize(
    ("bits", "granularity", "scheme"),
    [(8, "tensor", "asymmetric"), (8, "channel", "asymmetric"), (4, "channel", "symmetric")],
)
def test_weights_are_integers_and_outputs_close(network, run, op, direction, bits, granularity, scheme):
    artifact = network(op, direction)
    values = {"weight_bits": bits, "granularity": granularity, "scheme": scheme}
    made = QuantizeStage().apply(artifact, values, context())
    kept = stored(made)
    kind = TensorProto.INT4 if bits == 4 else TensorProto.INT8
    assert all(kept[f"cell.{part}_quantized"].data_type == kind for part in "wr")
    assert not {"cell.w", "cell.r"} & kept.keys()
    assert [n.op_type for n in made.proto().graph.node].count(op) == 1
    assert error(run, artifact, made) < (0.5 if bits == 4 else 0.05)
    assert error(run, artifact, made, optimize=True) < (0.6 if bits == 4 else 0.25)


def test_the_file_is_about_a_quarter(network):
    artifact = network(stem=False)
    made = QuantizeStage().apply(artifact, {}, context())
    floats, integers = (
        sum(len(i.raw_data) for i in a.proto().graph.initializer if i.name.startswith(("cell.w", "cell.r")))
        for a in (artifact, made)
    )
    assert integers < 0.35 * floats


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("weight_type", ["signed", "unsigned"])
def test_an_lstm_of_quantized_operators_is_dynamic(network, run, direction, granularity, weight_type):
    artifact = network("LSTM", direction)
    values = {
        "format": "qoperator",
        "granularity": granularity,
        "scheme": "symmetric",
        "weight_type": weight_type,
        "reduce_range": True,
    }
    made = QuantizeStage().apply(artifact, values, context())
    assert [n.op_type for n in made.proto().graph.node].count("DynamicQuantizeLSTM") == 1
    assert error(run, artifact, made) < 0.08


@pytest.mark.parametrize("op", ["GRU", "RNN"])
def test_quantized_operators_have_no_gru(network, run, op):
    artifact = network(op)
    made = QuantizeStage().apply(artifact, {"format": "qoperator"}, context())
    assert [n.op_type for n in made.proto().graph.node].count(op) == 1
    assert error(run, artifact, made) < 0.25


def test_an_asymmetric_weight_of_quantized_operators_is_dequantized(network, run):
    artifact = network()
    made = QuantizeStage().apply(artifact, {"format": "qoperator", "granularity": "tensor"}, context())
    assert [n.op_type for n in made.proto().graph.node].count("LSTM") == 1
    assert error(run, artifact, made) < 0.25


def test_the_arithmetic_is_named_as_float(network):
    (note,) = (n for n in QuantizeStage().remarks(network("GRU"), {}, context()) if "node_cell" in n)
    assert note == (
        "Left float: node_cell: its weights are stored as integers and computed with in float, since onnxruntime has no GRU "
        "between quantized activations"
    )


def test_a_network_of_nothing_else(build, run):
    b = build((WIDTH, STEPS))
    x = recurrent(
        b, b.op("Transpose", ["input"], "turned", perm=[2, 0, 1]), "one", "GRU", "forward", WIDTH, False
    )
    x = recurrent(
        b, b.op("Squeeze", [x, b.constant("axis", np.array([1]))], "sq"), "two", "LSTM", "forward", HIDDEN
    )
    artifact = b.artifact(b.op("Transpose", [x], "out", perm=[1, 0, 2]))
    stage, c = QuantizeStage(), context()
    made = stage.apply(artifact, {}, c)
    assert error(run, artifact, made) < 0.05
    whole = stage.canonical(artifact, {"keep_float": ("*",)}, c)
    assert stage.apply(artifact, whole, c).onnx_bytes == artifact.onnx_bytes
    ends = stage.apply(artifact, {"mixed_precision": True}, c)
    assert ends.onnx_bytes == artifact.onnx_bytes  # both weights of the first and of the last node stay float


def test_bits_per_weight(network, run):
    artifact = network()
    assert layer_names(artifact.proto()) == ["stem.weight", "head.weight", "cell.w", "cell.r"]
    widths = {"stem.weight": 8, "cell.w": 4, "cell.r": 8, "head.weight": 8}
    stage, c = QuantizeStage(), context()
    made = stored(stage.apply(artifact, {"weight_bits": widths}, c))
    assert made["cell.w_quantized"].data_type == TensorProto.INT4
    assert made["cell.r_quantized"].data_type == TensorProto.INT8
    float_r = stored(stage.apply(artifact, {"keep_float": ("cell.r",), "format": "qoperator"}, c))
    assert "cell.r" in float_r
    assert "cell.w_quantized" in float_r


def test_candidates_of_one_structure_equal_the_tools_files(network):
    artifact, stage, c = network(), QuantizeStage(), context()
    for values in ({}, {"clipping": "mse"}, {"weight_bits": 4}, {"reduce_range": True}):
        fresh = QuantizeStage().apply(artifact, values, context())
        assert stage.apply(artifact, values, c).onnx_bytes == fresh.onnx_bytes
    names = {layer.name for layer in recurrent_layers(artifact.proto())}
    scales = {n: numpy_helper.to_array(i) for n, i in stored(stage.apply(artifact, {}, c)).items()}
    assert all(scales[f"{name}_scale"].shape == (4 * HIDDEN,) for name in names)


def test_noise_is_estimated_for_both_weights(network):
    artifact, stage, c = network(), QuantizeStage(), context()
    rows = [
        {"weight_bits": {"stem.weight": 8, "head.weight": 8, "cell.w": a, "cell.r": b}}
        for a, b in ((8, 8), (4, 8), (8, 4))
    ]
    found = stage.estimates(artifact, [stage.canonical(artifact, r, c) for r in rows], c)["weights_sqnr_db"]
    assert np.isfinite(found).all()
    assert found[0] > max(found[1:]) + 3
    assert found[1] != found[2]


def test_a_computed_weight_stays_float_and_is_named(build):
    b = build((WIDTH, STEPS))
    x = b.op("Transpose", ["input"], "turned", perm=[2, 0, 1])
    mean = b.op("ReduceMean", [x], "mean", keepdims=0)
    b.op("Mul", ["cell.w", mean], "scaled")
    x = recurrent(b, x, "cell", "GRU", "forward", WIDTH)
    b.nodes[-1].input[1] = "scaled"
    x = b.op("Flatten", [b.op("Transpose", [x], "back", perm=[1, 0, 2])], "f")
    artifact, stage, c = b.artifact(b.linear(x, "head", HIDDEN, 4)), QuantizeStage(), context()
    assert "Left float: node_cell: one of its weights is computed" in stage.remarks(artifact, {}, c)
    widths = {"head.weight": 8, "cell.r": 4}
    assert stage.canonical(artifact, {"weight_bits": widths}, c) == stage.canonical(artifact, {}, c)


def test_a_cell_in_the_branch_of_an_if_stays_float_and_is_named(build):
    from onnx import helper

    b = build((WIDTH, STEPS))
    x = b.op("Transpose", ["input"], "turned", perm=[2, 0, 1])
    recurrent(b, x, "cell", "GRU", "forward", WIDTH)
    value = helper.make_tensor_value_info("cell_last", TensorProto.FLOAT, None)
    branch = helper.make_graph([b.nodes.pop()], "then", [], [value])
    other = helper.make_tensor_value_info("zeros", TensorProto.FLOAT, None)
    shape = b.constant("shape", np.array([1, 1, HIDDEN]))
    nodes = [helper.make_node("ConstantOfShape", [shape], ["zeros"])]
    choice = b.op(
        "Less", [b.op("ReduceMax", ["input"], "most", keepdims=0), b.constant("limit", np.float32(9))], "flag"
    )
    branches = {"then_branch": branch, "else_branch": helper.make_graph(nodes, "else", [], [other])}
    x = b.op("If", [choice], "chosen", **branches)
    x = b.op("Reshape", [x, b.constant("s", np.array([-1, HIDDEN]))], "f")
    notes = QuantizeStage().remarks(b.artifact(b.linear(x, "head", HIDDEN, 4)), {}, context())
    assert "Left float: node_chosen: layers in the subgraphs of If, Loop and Scan are not quantized" in notes
