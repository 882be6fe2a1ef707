"""Cross-layer equalization of the float network."""

import numpy as np
import pytest
from onnx import numpy_helper

from spaces.quantization.plan.cross_layer_equalization import equalize, pairs
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.artifact import Artifact


def equalized(artifact):
    proto = artifact.proto()
    equalize(proto)
    return Artifact.onnx(proto, artifact.input)


def weights(artifact):
    return {i.name: numpy_helper.to_array(i) for i in artifact.proto().graph.initializer}


def names(artifact):
    return [(p.first.name.split(".")[0], p.second.name.split(".")[0]) for p in pairs(artifact.proto())]


def test_pairs_and_depthwise_triples_are_found(small):
    # The stem's output also goes into the skip, and the classifier comes after a flatten.
    assert names(small) == [("expand", "depthwise"), ("depthwise", "project")]


def test_the_function_is_preserved(small, noise, run):
    result = equalized(small)
    wanted, got = run(small, noise.inputs), run(result, noise.inputs)
    assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert result.digest != small.digest


def test_ranges_are_equal_afterwards(small):
    before, after = weights(small), weights(equalized(small))

    def ranges(tensors, name, axis):
        others = tuple(i for i in range(4) if i != axis)
        return np.abs(tensors[f"{name}.weight"]).max(axis=others)

    for tensors, even in ((before, False), (after, True)):
        expand, depthwise, project = (
            ranges(tensors, "expand", 0),
            ranges(tensors, "depthwise", 0),
            ranges(tensors, "project", 1),
        )
        assert np.allclose(expand, depthwise, rtol=1e-2) is even
        assert np.allclose(depthwise, project, rtol=1e-2) is even
    assert np.array_equal(before["stem.weight"], after["stem.weight"])


def test_equalization_improves_per_tensor_quantization(build, context, noise, run):
    b = build((3, 8, 8))
    first = [b.weight("a.weight", 16, 3, 3, 3, spread=3.0), b.bias("a.bias", 16)]
    x = b.op("Relu", [b.op("Conv", ["input", *first], "a_out")], "a_relu")
    artifact = b.artifact(b.conv(x, "b", 16, 4))
    wanted, errors = run(artifact, noise.inputs), {}
    for even in (False, True):
        values = {"granularity": "tensor", "weight_bits": 4, "cross_layer_equalization": even}
        got = run(QuantizeStage().apply(artifact, values, context), noise.inputs)
        errors[even] = np.square(got - wanted).mean()
    assert errors[True] < 0.8 * errors[False]


@pytest.mark.parametrize("between", ["Relu", "LeakyRelu", "MaxPool", "AveragePool", None])
def test_operators_between_the_layers(build, noise, run, between):
    b = build((3, 8, 8))
    x = b.conv("input", "a", 3, 6)
    if between:
        x = b.op(between, [x], "mid", **({"kernel_shape": [2, 2]} if between.endswith("Pool") else {}))
    artifact = b.artifact(b.conv(x, "b", 6, 4, bias=False))
    assert names(artifact) == [("a", "b")]
    wanted = run(artifact, noise.inputs)
    assert np.abs(run(equalized(artifact), noise.inputs) - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_linear_layers_are_paired(build, run):
    b = build((6,))
    x = b.op("Relu", [b.linear("input", "a", 6, 9)], "mid")
    artifact = b.artifact(b.op("Gemm", [x, b.weight("b.weight", 9, 4), b.bias("b.bias", 4)], "out"))
    inputs = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
    assert names(artifact) == [("a", "b")]
    assert run(equalized(artifact), inputs) == pytest.approx(run(artifact, inputs), rel=1e-4, abs=1e-4)


def test_a_clip_becomes_a_relu_and_differs_only_where_it_saturated(build, noise, run):
    b = build((3, 8, 8))
    bounds = [b.constant("low", np.float32(0)), b.constant("high", np.float32(6))]
    x = b.op("Clip", [b.conv("input", "a", 3, 6), *bounds], "mid")
    artifact = b.artifact(b.conv(x, "b", 6, 4))
    result = equalized(artifact)
    assert [n.op_type for n in result.proto().graph.node] == ["Conv", "Relu", "Conv"]
    small_inputs = 0.1 * noise.inputs  # no activation reaches 6
    assert run(result, small_inputs) == pytest.approx(run(artifact, small_inputs), rel=1e-4, abs=1e-4)


def no_pair_fork(b):
    x = b.op("Relu", [b.conv("input", "a", 3, 6)], "mid")
    return b.artifact(b.op("Add", [b.conv(x, "b", 6, 6), x], "sum"))


def no_pair_sigmoid(b):
    return b.artifact(b.conv(b.op("Sigmoid", [b.conv("input", "a", 3, 6)], "mid"), "b", 6, 4))


def no_pair_clip_below_zero(b):
    bounds = [b.constant("low", np.float32(-1)), b.constant("high", np.float32(1))]
    return b.artifact(b.conv(b.op("Clip", [b.conv("input", "a", 3, 6), *bounds], "mid"), "b", 6, 4))


def no_pair_shared_weight(b):
    x = b.conv("input", "a", 3, 3)
    return b.artifact(b.op("Conv", [x, "a.weight"], "again", pads=[1] * 4))


def no_pair_output(b):
    x = b.conv("input", "a", 3, 6)
    b.conv(x, "b", 6, 4)
    return b.artifact(x)


@pytest.mark.parametrize(
    "network", [no_pair_fork, no_pair_sigmoid, no_pair_clip_below_zero, no_pair_shared_weight, no_pair_output]
)
def test_networks_without_a_pair(build, network):
    artifact = network(build((3, 8, 8)))
    assert names(artifact) == []
    assert equalized(artifact).digest == artifact.digest


def test_a_channel_without_weights_is_not_scaled(build, noise, run):
    b = build((3, 8, 8))
    weight = b.rng.standard_normal((4, 3, 1, 1)).astype(np.float32)
    weight[2] = 0
    x = b.op(
        "Relu", [b.op("Conv", ["input", b.constant("a.weight", weight), b.bias("a.bias", 4)], "a_out")], "mid"
    )
    artifact = b.artifact(b.conv(x, "b", 4, 4))
    assert np.isfinite(weights(equalized(artifact))["b.weight"]).all()
    assert run(equalized(artifact), noise.inputs) == pytest.approx(
        run(artifact, noise.inputs), rel=1e-4, abs=1e-4
    )
