"""The quantized file has the planned grids, and its outputs are close to the float model's."""

import itertools

import numpy as np
import pytest
from onnx import numpy_helper

from spaces.quantization import quantize
from spaces.quantization.quantize import QuantizeStage
from spaces.quantization.schemes.integers import stored_zero_point
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import noise_split

STORED = ("unsigned", "signed")


def sqnr_db(wanted, got):
    noise = np.square(wanted - got, dtype=np.float64).sum()
    return 10 * np.log10(np.square(wanted, dtype=np.float64).sum() / max(noise, 1e-30))


@pytest.fixture
def planned(monkeypatch):
    """The plans that the stage has made, in order."""
    plans, original = [], quantize.make_plan

    def make_plan(*args):
        plans.append(original(*args))
        return plans[-1]

    monkeypatch.setattr(quantize, "make_plan", make_plan)
    return plans


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("scheme", ["asymmetric", "symmetric_power2"])
@pytest.mark.parametrize(
    ("activations", "weights"), [("unsigned", "signed"), ("unsigned", "unsigned"), ("signed", "signed")]
)
def test_the_file_has_the_planned_grids(
    small, context, planned, form, granularity, scheme, activations, weights
):
    values = {
        "format": form,
        "granularity": granularity,
        "scheme": scheme,
        "activation_type": activations,
        "weight_type": weights,
    }
    proto = QuantizeStage().apply(small, values, context).proto()
    held = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}
    (plan,) = planned
    found = 0
    for grids, stored in ((plan.activations, activations), (plan.weights, weights)):
        for name, grid in grids.items():
            if f"{name}_scale" in held:
                found += 1
                assert np.array_equal(held[f"{name}_scale"].ravel(), grid.scale.ravel())
                assert np.array_equal(
                    held[f"{name}_zero_point"].ravel().astype(int), stored_zero_point(grid, stored).ravel()
                )
    assert found >= len(plan.weights) + 5
    for name, grid in plan.weights.items():
        shape = [1] * held[f"{name}_quantized"].ndim
        if grid.axis is not None:
            shape[grid.axis] = -1
        zero = stored_zero_point(grid, weights).reshape(shape)
        real = (held[f"{name}_quantized"].astype(np.float32) - zero) * grid.scale.reshape(shape)
        original = next(i for i in small.proto().graph.initializer if i.name == name)
        assert np.array_equal(real.astype(np.float32), grid.dequantized(numpy_helper.to_array(original)))


@pytest.mark.parametrize("bits", [{"weight_bits": 4}, {"activation_bits": 16}, {}], ids=["w4", "a16", "w8a8"])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_storage_types_do_not_change_values(small, context, noise, run, bits, granularity):
    outputs = []
    for activations, weights in itertools.product(STORED, STORED):
        values = {"activation_type": activations, "weight_type": weights, "granularity": granularity, **bits}
        # Without optimization every operator is computed as defined by ONNX.
        outputs.append(run(QuantizeStage().apply(small, values, context), noise.inputs, optimize=False))
    for other in outputs[1:]:
        assert other == pytest.approx(outputs[0], abs=1e-4)


FORMS = [
    (form, activations, weights)
    for form, activations, weights in itertools.product(("qdq", "qoperator"), STORED, STORED)
    if (form, activations, weights) != ("qoperator", "signed", "unsigned")
]


def many_operators(b):
    """Every operator that may be quantized, and Softmax, which is not."""
    bounds = [b.constant("low", np.float32(0)), b.constant("high", np.float32(6))]
    x = b.op("Clip", [b.conv("input", "a", 3, 8), *bounds], "a_clip")
    x = b.op("MaxPool", [x], "pooled", kernel_shape=[2, 2], strides=[2, 2])
    y = b.op("LeakyRelu", [b.conv(x, "b", 8, 8, group=2)], "b_leaky", alpha=0.1)
    z = b.op("Sigmoid", [b.conv(x, "c", 8, 8, bias=False)], "c_sigmoid")
    x = b.op("Concat", [b.op("Mul", [y, z], "gated"), x], "joined", axis=1)
    x = b.op("AveragePool", [x], "averaged", kernel_shape=[2, 2], pads=[0, 0, 1, 1])
    up = [b.weight("up.weight", 16, 4, 2, 2), b.bias("up.bias", 4)]
    x = b.op("Relu", [b.op("ConvTranspose", [x, *up], "up_out", strides=[2, 2])], "up_relu")
    x = b.op("Transpose", [x], "last", perm=[0, 2, 3, 1])  # (n, 8, 8, 4)
    x = b.op("MatMul", [x, b.weight("mix.weight", 4, 6)], "mixed")
    x = b.op("Relu", [b.op("Add", [x, b.bias("mix.bias", 6)], "mixed_bias")], "mixed_relu")
    x = b.op("ReduceMean", [x, b.constant("axes", np.array([1, 2]))], "mean", keepdims=0)
    return b.artifact(b.op("Softmax", [b.linear(x, "head", 6, 5)], "out"))


def fork_before_relu(b):
    """A pre-activation block: both a ReLU and the skip read the sum."""
    x = b.conv("input", "a", 3, 6)
    y = b.conv(b.op("Relu", [x], "relu"), "b", 6, 6)
    return b.artifact(b.conv(b.op("Add", [x, y], "sum"), "c", 6, 4))


def shared_bias(b):
    bias = b.bias("bias", 4)
    x = b.op("Conv", ["input", b.weight("a.weight", 4, 3, 1, 1), bias], "a")
    x = b.op("Mul", [x, x], "squared")
    return b.artifact(b.op("Conv", [x, b.weight("b.weight", 4, 4, 1, 1), bias], "b"))


def shared_weight(b):
    weight = b.weight("weight", 3, 3, 1, 1)
    return b.artifact(b.op("Conv", [b.op("Conv", ["input", weight], "a"), weight], "b"))


def scaled_gemm(b):
    x = b.op("Flatten", ["input"], "flat")
    inputs = [x, b.weight("a.weight", 192, 5), b.bias("a.bias", 5)]
    return b.artifact(b.op("Gemm", inputs, "out", alpha=0.5, beta=3.0))


def attention(b):
    """A product of two activations."""
    x = b.op("Reshape", ["input", b.constant("shape", np.array([0, 3, 64]))], "tokens")
    q = b.op("MatMul", [x, b.weight("q.weight", 64, 16)], "q")
    k = b.op("MatMul", [x, b.weight("k.weight", 64, 16)], "k")
    scores = b.op("MatMul", [q, b.op("Transpose", [k], "kt", perm=[0, 2, 1])], "scores")
    return b.artifact(
        b.op(
            "MatMul",
            [b.op("Softmax", [scores], "p"), b.op("MatMul", [x, b.weight("v.weight", 64, 8)], "v")],
            "out",
        )
    )


def computed_operands(b):
    """A convolution whose weight, and one whose bias, comes out of other nodes; both stay float."""
    weight = b.op("Tanh", [b.weight("w", 4, 3, 1, 1)], "tanh_w")
    x = b.op("Conv", ["input", weight], "a")
    x = b.op("Conv", [x, b.weight("b.weight", 4, 4, 1, 1), b.op("Tanh", [b.bias("c", 4)], "tanh_c")], "b")
    x = b.op("Add", [x, b.constant("one", np.float32(1))], "added")
    x = b.op(
        "Reshape",
        [x, b.op("Concat", [b.constant("i", np.array([0])), b.constant("j", np.array([256]))], "s", axis=0)],
        "flat",
    )
    return b.artifact(b.linear(x, "head", 256, 5))


def padded_shortcut(b):
    """A parameter-free shortcut: every second pixel, with channels of zeros on both sides."""
    x = b.op("Relu", [b.conv("input", "a", 3, 4)], "a_relu")
    y = b.conv(x, "b", 4, 8, strides=[2, 2])
    numbers = {"starts": [0, 0], "ends": [100, 100], "axes": [2, 3], "steps": [2, 2]}
    x = b.op("Slice", [x, *(b.constant(name, np.array(v)) for name, v in numbers.items())], "every_second")
    x = b.op("Pad", [x, b.constant("pads", np.array([0, 2, 0, 0, 0, 2, 0, 0]))], "padded")
    x = b.op("Relu", [b.op("Add", [y, x], "sum")], "sum_relu")
    return b.artifact(b.conv(x, "c", 8, 4))


NETWORKS = [
    padded_shortcut,
    computed_operands,
    many_operators,
    fork_before_relu,
    shared_bias,
    shared_weight,
    scaled_gemm,
    attention,
]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("form", "activations", "weights"), FORMS)
@pytest.mark.parametrize("scheme", ["asymmetric", "symmetric"])
def test_every_form_is_close_to_float(
    build, run, network, form, activations, weights, scheme, integer_kernels_saturate
):
    if integer_kernels_saturate and form == "qoperator":
        pytest.skip("this processor's 8-bit kernels saturate")
    artifact, split = network(build((3, 8, 8))), noise_split((3, 8, 8), 64)
    wanted = run(artifact, split.inputs)
    for granularity in ("tensor", "channel"):
        values = {
            "format": form,
            "activation_type": activations,
            "weight_type": weights,
            "granularity": granularity,
            "scheme": scheme,
        }
        result = QuantizeStage().apply(artifact, values, StageContext(split, Cache()))
        got = run(result, split.inputs, optimize=not integer_kernels_saturate)
        assert sqnr_db(wanted, got) > 20
        assert sqnr_db(got, run(result, split.inputs, optimize=False)) > 28


def test_a_bias_much_larger_than_its_weights(build, run, noise, context, integer_kernels_saturate):
    b = build((3, 8, 8))
    weight = b.rng.standard_normal((4, 3, 1, 1)).astype(np.float32)
    weight[1] *= 1e-9  # scale(input) * scale(weight) would make the int32 bias overflow
    bias = b.constant("a.bias", np.full(4, 2.0, np.float32))
    artifact = b.artifact(b.op("Conv", ["input", b.constant("a.weight", weight), bias], "out"))
    for values in ({}, {"scheme": "symmetric_power2"}, {"activation_bits": 16}, {"weight_type": "unsigned"}):
        quantized = QuantizeStage().apply(artifact, values, context)
        result = run(quantized, noise.inputs, optimize=not integer_kernels_saturate)
        assert sqnr_db(run(artifact, noise.inputs), result) > 28
        assert result[:, 1] == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
def test_old_opsets_are_converted_as_far_as_needed(build, run, noise, context, opset):
    b = build((3, 8, 8))
    x = b.op("MaxPool", [b.op("Relu", [b.conv("input", "a", 3, 8)], "mid")], "pool", kernel_shape=[2, 2])
    artifact = b.artifact(b.conv(x, "b", 8, 4), opset=opset)
    for values, threshold in (({}, 13), ({"weight_bits": 4}, 21), ({"activation_bits": 16}, 21)):
        result = QuantizeStage().apply(artifact, values, context)
        assert next(o.version for o in result.proto().opset_import if not o.domain) == max(opset, threshold)
        assert {n.domain for n in result.proto().graph.node} == {""}
        assert sqnr_db(run(artifact, noise.inputs), run(result, noise.inputs)) > 12


def test_user_metadata_is_kept(small, context):
    from spaces.stages.artifact import Artifact

    proto = small.proto()
    proto.metadata_props.add(key="author", value="somebody")
    result = QuantizeStage().apply(Artifact.onnx(proto, small.input), {}, context).proto()
    assert {p.key: p.value for p in result.metadata_props} == {"author": "somebody"}
