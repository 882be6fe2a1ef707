"""The conformance test of methods of rounding.

A new one inherits it in four lines::

    class TestMine(RoundingConformance):
        method = Mine(steps=30)
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from spaces.quantization.plan.plan import Settings, make_plan
from spaces.quantization.plan.source import Source, Sources
from spaces.quantization.plan.weight_grids import WeightGrids
from spaces.quantization.rounding.base import Method
from spaces.quantization.rounding.walk import Rounded, Walk
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import noise_split

if TYPE_CHECKING:
    import onnx

N_IMAGES = 48


class RoundingConformance:
    """What every method keeps to.

    Attributes:
        method: The method.
    """

    method: Method

    @pytest.fixture(params=[(3, 8), (4, 4)], ids=["w3a8", "w4a4"])
    def walk(self, request: pytest.FixtureRequest) -> Walk:
        """A network with a branch, a depthwise Conv, a Gemm and a MatMul, its plan and its data."""
        weight_bits, activation_bits = request.param
        artifact = Artifact.onnx(_branched(), InputSpec((3, 8, 8)))
        context = StageContext(noise_split((3, 8, 8), N_IMAGES, 3), Cache())
        source = Sources().source(artifact, False, context)
        settings = _settings(source, weight_bits, activation_bits)
        spans = dict.fromkeys(source.network.tensors, (-3.0, 3.0))
        return Walk(
            source, make_plan(source, spans, settings, WeightGrids()), settings.layers_only, N_IMAGES, context
        )

    @pytest.fixture
    def rounded(self, walk: Walk) -> Rounded:
        """The network rounded by the method."""
        return walk.rounded(self.method)

    def test_weights_are_on_their_grids(self, walk: Walk, rounded: Rounded) -> None:
        """Every weight is one of the values of its grid; grids keep width and axis."""
        assert rounded.weights.keys() == walk.plan.weights.keys()
        for name, weight in rounded.weights.items():
            grid = rounded.plan.weights[name]
            assert (grid.bits, grid.axis) == (walk.plan.weights[name].bits, walk.plan.weights[name].axis)
            np.testing.assert_allclose(grid.dequantized(weight), weight, rtol=1e-5, atol=1e-7)

    def test_error_is_not_above_the_nearest_rounding(self, walk: Walk, rounded: Rounded) -> None:
        """No part's outputs are farther from the float network's, given what it reads, on the calibration examples."""
        assert ", ".join(rounded.errors).split(", ") == list(walk.plan.weights)
        assert all(after <= before for before, after in rounded.errors.values())

    def test_scales_that_cannot_take_any_value_stay(self, walk: Walk) -> None:
        """Of a scheme of powers of two, say, scales of weights are as they were."""
        fixed = replace(walk, fixed_scales=True).rounded(self.method)
        for name, grid in walk.plan.weights.items():
            np.testing.assert_array_equal(fixed.plan.weights[name].scale, grid.scale)

    def test_same_seed_same_result(self, walk: Walk, rounded: Rounded) -> None:
        """A second run, with nothing cached, gives the same weights."""
        again = replace(walk, context=replace(walk.context, cache=Cache())).rounded(self.method)
        assert all(np.array_equal(again.weights[name], weight) for name, weight in rounded.weights.items())
        assert again.plan.activations.keys() == rounded.plan.activations.keys()


def _settings(source: Source, weight_bits: int, activation_bits: int) -> Settings:
    return Settings(
        scheme="asymmetric", clipping="mse", percentile=99.99, per_channel=True,
        weight_bits=dict.fromkeys(source.network.names, weight_bits), activation_bits=activation_bits,
        activation_type="unsigned", weight_type="signed", format="qdq", reduce_range=False, rounding="adaround",
    )  # fmt: skip


def _branched() -> "onnx.ModelProto":
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> "onnx.TensorProto":
        fan_in = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
        values = random.standard_normal(shape) / np.sqrt(fan_in)
        return numpy_helper.from_array(values.astype(np.float32), name)

    biases = [
        numpy_helper.from_array(np.zeros(8, np.float32), f"{n}.bias")
        for n in ("stem", "depthwise", "project")
    ]
    nodes = [
        helper.make_node("Conv", ["input", "stem.weight", "stem.bias"], ["a"], "stem", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node(
            "Conv",
            ["b", "depthwise.weight", "depthwise.bias"],
            ["c"],
            "depthwise",
            pads=[1, 1, 1, 1],
            group=8,
        ),
        helper.make_node("Relu", ["c"], ["d"], "relu_of_depthwise"),
        helper.make_node("Conv", ["d", "project.weight", "project.bias"], ["e"], "project"),
        helper.make_node("Add", ["b", "e"], ["f"], "sum"),
        helper.make_node("GlobalAveragePool", ["f"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["h"], "flatten"),
        helper.make_node("MatMul", ["h", "hidden.weight"], ["i"], "hidden"),
        helper.make_node("Gemm", ["i", "head.weight"], ["output"], "head"),
    ]
    initializers = [
        weight("stem.weight", 8, 3, 3, 3), weight("depthwise.weight", 8, 1, 3, 3), weight("project.weight", 8, 8, 1, 1),
        weight("hidden.weight", 8, 16), weight("head.weight", 16, 5), *biases,
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "branched", [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 5])], initializers,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
