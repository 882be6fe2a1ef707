"""Descriptors of a model agree with its graph."""

import math

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from evaluators.task.tasks.classification.digits import DigitsTask
from search.knowledge.descriptors import descriptors_of
from spaces.stages.artifact import Artifact, InputSpec


@pytest.fixture
def model(tiny):
    return tiny


def described(model):
    task = DigitsTask(calibration=16, validation=128, test=50)
    return descriptors_of(Artifact.onnx(model, InputSpec((1, 8, 8))), task, task.splits())


def test_descriptors_of_layers_sizes_and_task(model):
    descriptors = described(model)
    counts = {
        "conv": 1,
        "depthwise": 1,
        "pointwise": 1,
        "fully_connected": 1,
        "skips": 1,
        "activation_relu": 1,
    }
    assert {name: descriptors[name] for name in counts} == counts
    assert descriptors["log2_macs"] == pytest.approx(math.log2(64 * 9 * 4 + 64 * 9 * 4 + 64 * 16 + 40))
    assert descriptors["log2_parameters"] == pytest.approx(math.log2(36 + 36 + 16 + 40 + 10))
    assert descriptors["log2_classes"] == math.log2(10)
    assert descriptors["log2_examples"] == 7
    assert descriptors["log2_input"] == 6
    assert all(math.isfinite(v) for v in descriptors.values())


def test_channel_spread_is_the_mean_ratio_of_ranges_in_bits(model):
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for stored in changed.graph.initializer:
        array = np.ones(tuple(stored.dims), np.float32)
        if stored.name == "depthwise.weight":
            array[0] = 8.0
        stored.CopyFrom(numpy_helper.from_array(array, stored.name))
    assert described(changed)["channel_spread"] == pytest.approx(3 / 4)  # 3 bits in one of four layers


def test_descriptors_that_cannot_be_computed_are_left_out(model):
    descriptors = descriptors_of(
        Artifact.onnx(b"no model", InputSpec((1,))), DigitsTask(), DigitsTask().splits()
    )
    assert set(descriptors) == {"log2_classes", "log2_examples", "log2_input"}
    dynamic = onnx.ModelProto()
    dynamic.CopyFrom(model)
    dynamic.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    assert "conv" in described(dynamic)


def test_an_empty_weight_has_no_spread(model):
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    stored = next(i for i in changed.graph.initializer if i.name == "head.weight")
    stored.CopyFrom(numpy_helper.from_array(np.zeros((4, 0), np.float32), stored.name))
    assert "channel_spread" in described(changed)
