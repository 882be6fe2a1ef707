"""Analytic bias correction."""

import numpy as np
import pytest
from onnx import numpy_helper

from spaces.models.layers import layers
from spaces.quantization.plan.bias_correction import correct_biases, is_correctable
from spaces.quantization.quantize import QuantizeStage
from spaces.quantization.schemes.scheme import make_grid, scheme_of
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import Artifact
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext


def rounded(proto, bits=3):
    """The model with rounded weights, the grids, and the original weights."""
    weights, grids = {}, {}
    for layer in layers(proto):
        tensor = next(i for i in proto.graph.initializer if i.name == layer.name)
        weight = weights[layer.name] = numpy_helper.to_array(tensor)
        grids[layer.name] = make_grid(scheme_of("symmetric").weights, weight.min(), weight.max(), bits)
    return weights, grids


def with_rounded_weights(proto, weights, grids):
    for tensor in proto.graph.initializer:
        if tensor.name in grids:
            tensor.CopyFrom(
                numpy_helper.from_array(grids[tensor.name].dequantized(weights[tensor.name]), tensor.name)
            )


@pytest.mark.parametrize("kind", ["plain", "grouped", "depthwise", "no bias", "gemm", "gemm untransposed"])
def test_the_mean_output_of_a_layer_is_restored(build, run, kind):
    shape = (6,) if "gemm" in kind else (6, 5, 5)
    b = build(shape)
    if kind == "gemm":
        out = b.linear("input", "layer", 6, 4)
    elif kind == "gemm untransposed":
        out = b.op("Gemm", ["input", b.weight("layer.weight", 6, 4), b.bias("layer.bias", 4)], "out")
    else:
        groups = {"grouped": 2, "depthwise": 6}.get(kind, 1)
        # Without padding the mean of the input is the same at every kernel position, except at the border.
        inputs = ["input", b.weight("layer.weight", 12, 6 // groups, 1, 1)]
        inputs += [] if kind == "no bias" else [b.bias("layer.bias", 12)]
        out = b.op("Conv", inputs, "out", group=groups)
    artifact = b.artifact(out)
    inputs = np.random.default_rng(0).uniform(0, 3, (50, *shape)).astype(np.float32)
    proto = artifact.proto()
    weights, grids = rounded(proto)
    axes = (0, 2, 3) if len(shape) == 3 else 0
    means = {"input": inputs.mean(axis=axes, dtype=np.float64)}
    plain, corrected = artifact.proto(), artifact.proto()
    correct_biases(corrected, layers(corrected), weights, grids, means)
    for model in (plain, corrected):
        with_rounded_weights(model, weights, grids)
    wanted, before, after = (
        run(Artifact.onnx(m, artifact.input), inputs).mean(axis=axes) for m in (proto, plain, corrected)
    )
    assert np.abs(before - wanted).max() > 0.05
    assert after == pytest.approx(wanted, abs=1e-4)


def test_layers_without_a_grid_and_matmuls_are_not_changed(build):
    b = build((6,))
    out = b.op("MatMul", [b.linear("input", "first", 6, 4), b.weight("second.weight", 4, 3)], "out")
    proto = b.artifact(out).proto()
    before = proto.SerializeToString()
    assert [is_correctable(layer) for layer in layers(proto)] == [True, False]
    weights, grids = rounded(proto)
    grids.pop("first.weight")
    correct_biases(proto, layers(proto), weights, grids, {})
    assert proto.SerializeToString() == before


def test_correction_reduces_the_error_at_four_bits(small, run, noise):
    inputs = np.abs(noise.inputs)  # a mean that is not 0, as images have
    context = StageContext(ArraySplit(inputs, noise.labels), Cache())
    wanted, shift = run(small, inputs), {}
    for corrected in (False, True):
        values = {"weight_bits": 4, "granularity": "tensor", "bias_correction": corrected}
        result = run(QuantizeStage().apply(small, values, context), inputs)
        shift[corrected] = np.abs((result - wanted).mean(axis=0)).mean()
    assert shift[True] < 0.5 * shift[False]
