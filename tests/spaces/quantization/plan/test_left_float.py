"""What kernels, arithmetic or calibration cannot take stays float, with a note, and every candidate is built."""

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from spaces.errors import StageError
from spaces.quantization.plan.left_float import MOST_NAMES, notes
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import noise_split

VALUES = [
    {"format": form, "granularity": granularity, "weight_bits": bits, "reduce_range": bits == 8, **more}
    for form, granularity, bits, more in (
        ("qdq", "channel", 8, {"bias_correction": True}),
        ("qdq", "tensor", 8, {"cross_layer_equalization": True, "clipping": "mse"}),
        ("qdq", "channel", 4, {"cross_layer_equalization": True, "bias_correction": True}),
        ("qoperator", "channel", 8, {"bias_correction": True}),
        ("qoperator", "tensor", 8, {}),
    )
]


def constant(b, name, *shape, value=None):
    array = b.rng.standard_normal(shape) / 3 if value is None else np.full(shape, value)
    return b.constant(name, array.astype(np.float32))


def ints(b, name, *values):
    return b.constant(name, np.array(values, np.int64))


@pytest.fixture
def built(run):
    """Builds the candidates of VALUES, compares each with the float network, and returns what is left float."""

    def build(artifact):
        stage, split = QuantizeStage(), noise_split(artifact.input.shape, 32)
        context, found = StageContext(split, Cache()), []
        wanted = run(artifact, split.inputs)
        for values in VALUES:
            chosen = stage.canonical(artifact, values, context)
            found.append(chosen)
            got = run(stage.apply(artifact, chosen, context), split.inputs)
            allowed = 0.5 if chosen["weight_bits"] == 4 else 0.25
            assert np.sqrt(np.mean((got - wanted) ** 2)) < allowed * np.sqrt(np.mean(wanted**2)), values
        estimates = stage.estimates(artifact, found, context)
        assert np.isfinite(estimates["propagated_sqnr_db"]).all()
        return stage.remarks(artifact, {}, context)

    return build


def test_a_network_that_is_quantized_whole_has_no_notes(small, context):
    assert QuantizeStage().remarks(small, {}, context) == ()


def test_a_clip_of_whole_numbers_has_no_range(build, built):
    b = build((4,))
    ids = b.op("Cast", [b.op("Abs", ["input"], "positive")], "whole", to=TensorProto.INT64)
    ids = b.op("Clip", [ids, *(b.constant(f"limit{n}", np.array(n, np.int64)) for n in (0, 7))], "ids")
    x = b.op("Flatten", [b.op("Gather", [constant(b, "table", 8, 6), ids], "rows")], "flat")
    x = b.op("Relu", [b.op("MatMul", [x, constant(b, "w", 24, 16)], "first")], "act")
    notes_of_floats = built(b.artifact(b.op("MatMul", [x, constant(b, "v", 16, 5)], "last")))
    assert not [note for note in notes_of_floats if "ids" in note]
    (table,) = [note for note in notes_of_floats if "table is looked up" in note]
    assert "rows" in table


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("bias", [False, True])
def test_convtranspose_with_groups(build, built, groups, bias):
    b = build((3, 6, 6))
    x = b.op("Relu", [b.conv("input", "stem", 3, 8)], "stem_relu")
    inputs = [x, b.weight("up.weight", 8, 16 // groups, 3, 3, spread=0.1)] + ([b.bias("up.bias", 16)] * bias)
    x = b.op("Relu", [b.op("ConvTranspose", inputs, "up", group=groups, strides=[2, 2])], "up_relu")
    assert built(b.artifact(b.conv(x, "last", 16, 4, 1))) == ()


def shared_convtranspose(b, size):
    shared = b.weight("shared", 4, 3, 3, 3, spread=0.1)
    first, second = (constant(b, f"{n}.bias", n, value=size) for n in (6, 3))
    x = b.op("ConvTranspose", ["input", shared, first], "first", group=2)
    x = b.op("ConvTranspose", [b.conv(x, "mid", 6, 4, 1), shared, second], "second")
    return b.artifact(b.conv(x, "last", 3, 4, 1))


def test_one_weight_read_by_two_convtranspose_with_other_groups(build, built):
    assert built(shared_convtranspose(build((4, 6, 6)), 0.1)) == ()


def test_large_biases_bound_the_one_scale_of_a_shared_weight(build):
    artifact = shared_convtranspose(build((4, 6, 6)), 1e8)
    made = QuantizeStage().apply(artifact, {}, StageContext(noise_split((4, 6, 6)), Cache()))
    scales = {i.name: numpy_helper.to_array(i) for i in made.proto().graph.initializer}
    assert scales["shared_scale"].shape == ()
    assert 1e8 / (scales["shared_scale"] * scales["input_scale"]) < 2**30


def test_matmul_by_a_vector(build, built):
    b = build((3, 4, 12))
    x = b.op("MatMul", ["input", constant(b, "first", 12, 16)], "x")
    x = b.op("MatMul", [x, constant(b, "odd", 16)], "odd_out")
    artifact = b.artifact(b.linear(b.op("Flatten", [x], "flat"), "last", 12, 5))
    (note,) = built(artifact)
    assert note.startswith("Left float: node_odd_out: ")
    assert note.endswith("its weight has 1")


@pytest.mark.parametrize("shape", [(3, 12, 16), (1, 12, 16), (2, 3, 12, 16)])
def test_matmul_by_a_weight_with_more_than_two_axes(build, built, shape):
    b = build((*((1,) if len(shape) == 4 else ()), 3, 4, 12))
    x = b.op("MatMul", ["input", constant(b, "odd", *shape)], "odd_out")
    n = 3 * 4 * 16 * (2 if len(shape) == 4 else 1)
    artifact = b.artifact(b.linear(b.op("Flatten", [x], "flat"), "last", n, 5))
    assert built(artifact) == ()
    context = StageContext(noise_split(artifact.input.shape, 32), Cache())
    made = QuantizeStage().apply(artifact, {"granularity": "channel"}, context)
    kept = {i.name: i for i in made.proto().graph.initializer}
    assert kept["odd_quantized"].data_type == TensorProto.INT8
    assert not kept["odd_scale"].dims  # kernels take one scale


@pytest.mark.parametrize("square", [False, True])
def test_one_weight_read_by_two_layers_once_transposed(build, built, square):
    b = build((8,))
    n = 8 if square else 12
    tied = constant(b, "tied", n, 8)
    x = b.op("Gemm", ["input", tied, b.bias("first.bias", n)], "first", transB=1)
    x = b.op("Gemm", [b.op("Relu", [x], "r"), tied, b.bias("second.bias", 8)], "second")
    x = b.op("Gemm", [b.op("Relu", [x], "r2"), tied], "third", transB=1)
    assert built(b.artifact(b.linear(x, "last", n, 5))) == ()


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 16), (16,)])
def test_a_gemm_bias_that_broadcasts(build, built, shape):
    from spaces.models.export import ExportStage

    b = build((12,))
    x = b.op("Gemm", ["input", constant(b, "w", 12, 16), constant(b, "b", *shape)], "x")
    artifact = b.artifact(b.linear(b.op("Relu", [x], "r"), "last", 16, 5))
    exported = ExportStage().apply(artifact, {}, StageContext(None, Cache()))
    assert built(exported) == ()


def test_layers_whose_arithmetic_has_no_integer_form(build, built):
    b = build((12,))
    x = b.op("Relu", [b.linear("input", "first", 12, 16)], "x")
    mean = b.op("ReduceMean", [x, ints(b, "axis", 1)], "mean", keepdims=1)
    y = b.op("Gemm", [x, constant(b, "computed", 16, 6), mean], "y")
    z = b.op("Transpose", [x], "z", perm=[1, 0])
    z = b.op("Gemm", [z, constant(b, "turned", 16, 6)], "turned_out", transA=1)
    e = b.op("Gemm", [x, constant(b, "nothing", 16, 0)], "empty")
    x = b.op("Concat", [y, z, e], "all", axis=1)
    found = built(b.artifact(b.linear(x, "last", 12, 5)))
    assert found == (
        "Left float: node_mean: ReduceMean has no integer kernel that is used here",
        "Left float: node_y: its bias is computed",
        "Left float: node_turned_out: its input is transposed (transA)",
        "Left float: node_empty: its weight is empty",
        "Left float: node_all: its input is empty",
    )


def test_padding_with_minus_infinity(build, built):
    b = build((3, 8, 8))
    x = b.conv("input", "stem", 3, 8)
    x = b.op("Pad", [x, ints(b, "pads", 0, 0, 0, 0, 0, 0, 1, 1), constant(b, "inf", value=-np.inf)], "pad")
    x = b.op("MaxPool", [x], "pool", kernel_shape=[3, 3], strides=[2, 2])
    found = built(b.artifact(b.conv(x, "last", 8, 4)))
    assert found == (
        "Left float: node_pad: its output is not finite",
        "Left float: node_pool: its input is not finite",
    )


@pytest.mark.parametrize("value", [-np.inf, np.finfo(np.float32).min, -1e4])
@pytest.mark.parametrize("by", ["Add", "Where"])
def test_masks(build, built, value, by):
    b = build((6, 8))
    q, k, v = (b.op("MatMul", ["input", constant(b, f"w{n}", 8, 8)], n) for n in "qkv")
    x = b.op("MatMul", [q, b.op("Transpose", [k], "kt", perm=[0, 2, 1])], "scores")
    masked = np.triu(np.ones((6, 6), bool), 1)
    if by == "Add":
        mask = b.constant("mask", np.where(masked, value, 0).astype(np.float32))
        x = b.op("Add", [x, b.op("Expand", [mask, b.op("Shape", [x], "shape")], "wide")], "sum")
    else:
        x = b.op("Where", [b.constant("mask", masked), constant(b, "low", value=value), x], "sum")
    x = b.op("Reshape", [x, ints(b, "same", 0, 6, 6)], "again")
    x = b.op("MatMul", [b.op("Softmax", [x], "soft", axis=-1), v], "mixed")
    found = " ".join(built(b.artifact(b.linear(b.op("Flatten", [x], "flat"), "last", 48, 5))))
    assert "node_again" in found
    assert "node_sum" in found
    assert ("not finite" if np.isinf(value) else "holds a mask") in found


def test_tensors_of_size_zero(build, built):
    b = build((3, 6, 6))
    x = b.conv("input", "stem", 3, 8)
    ends = [ints(b, "start", 8), ints(b, "end", 99), ints(b, "axis", 1)]
    y = b.op("Relu", [b.op("Slice", [x, *ends], "none")], "still_none")
    z = b.op("Concat", [x, y], "joined", axis=1)
    found = built(b.artifact(b.conv(z, "last", 8, 4)))
    assert found == (
        "Left float: node_none: its output is empty",
        "Left float: node_still_none, node_joined: its input is empty",
    )


def test_a_scalar_activation(build, built):
    b = build((12,))
    x = b.linear("input", "first", 12, 16)
    x = b.op("Mul", [x, b.op("ReduceMax", [x], "most", keepdims=0)], "scaled")
    found = built(b.artifact(b.linear(x, "last", 16, 5)))
    assert "Left float: node_scaled: its input is a scalar without a batch axis" in found


def test_a_weight_as_first_operand(build, built):
    b = build((6, 8))
    x = b.op("MatMul", [constant(b, "w", 4, 6), "input"], "x")
    found = built(b.artifact(b.linear(b.op("Flatten", [x], "flat"), "last", 32, 5)))
    assert found == (
        "Left float: node_x: its weight is the first operand, and kernels take a weight as the second",
    )


def test_a_bias_that_an_add_reads_too_is_corrected_alone(build, context):
    b = build((3, 8, 8))
    x = b.conv("input", "stem", 3, 8)
    x = b.op("Mul", [b.op("GlobalAveragePool", [x], "pool"), "stem.bias"], "scaled")
    artifact = b.artifact(b.conv(x, "last", 8, 4, 1))
    made = QuantizeStage().apply(artifact, {"bias_correction": True, "weight_bits": 4}, context)
    before, after = (
        next(numpy_helper.to_array(i) for i in a.proto().graph.initializer if i.name == "stem.bias")
        for a in (artifact, made)
    )
    np.testing.assert_array_equal(before, after)


def test_what_the_qoperator_format_lacks_is_said_where_the_space_has_it(build, context):
    b = build((3, 8, 8))
    x = b.conv("input", "stem", 3, 8)
    artifact = b.artifact(b.op("ConvTranspose", [x, b.weight("up.weight", 8, 4, 3, 3)], "up"))
    stage = QuantizeStage()
    assert stage.remarks(artifact, {"format": ("qdq",)}, context) == ()
    (note,) = stage.remarks(artifact, {"format": ("qdq", "qoperator")}, context)
    assert note == "Left float: node_up: with format=qoperator, since onnxruntime has no such ConvTranspose"


def test_knobs_of_a_layer_that_stays_float_are_accepted(build, context):
    b = build((12,))
    x = b.op("Gemm", [b.linear("input", "first", 12, 16), constant(b, "odd", 16, 0)], "odd_out")
    artifact = b.artifact(b.linear(b.op("Concat", ["first_out", x], "all", axis=1), "last", 16, 5))
    stage = QuantizeStage()
    plain = stage.canonical(artifact, {}, context)
    assert stage.canonical(artifact, {"keep_float": ("odd",)}, context) == plain
    widths = {"first.weight": 8, "odd": 4, "last.weight": 8}
    assert stage.canonical(artifact, {"weight_bits": widths}, context) == plain
    stage.check_globs(artifact, ["odd"])


def test_a_network_without_a_layer_that_can_be_quantized_says_why(build, context):
    b = build((12,))
    artifact = b.artifact(b.op("MatMul", ["input", constant(b, "odd", 12)], "out"))
    with pytest.raises(StageError, match=r"Left float: node_out: .* its weight has 1"):
        QuantizeStage().check(artifact, {}, context)


def test_notes_name_few_nodes():
    (note,) = notes(dict.fromkeys("abcdefghijkl", "why"))
    assert note == f"Left float: a, b, c, d, e, f, g, h and {12 - MOST_NAMES} more: why"
