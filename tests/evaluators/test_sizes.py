"""The two sizes of a model."""

import numpy as np
import pytest
from onnx import numpy_helper

from evaluators.base import Measurement
from evaluators.sizes import sizes_of
from evaluators.testing import tiny_model
from spaces.models.weight_formats import KEY
from spaces.quantization.formats.onnx_weights import encode_layers, with_packed_weights
from spaces.quantization.formats.shift_add import ShiftAdd
from spaces.quantization.formats.stored import record_widths, stored_weights
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import Artifact
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext

IMAGES = np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)
CONTEXT = StageContext(ArraySplit(IMAGES, np.zeros(8, np.int64)), Cache())


def sizes(model):
    return {m.name: m.value for m in sizes_of(model)}


def trained():
    """A network one of whose layers was trained to be ternary."""
    proto = tiny_model().proto()
    weight = next(i for i in proto.graph.initializer if i.name == "dense_weight")
    signs = np.sign(numpy_helper.to_array(weight))
    weight.CopyFrom(numpy_helper.from_array(0.25 * signs.astype(np.float32), weight.name))
    proto.metadata_props.add(key=KEY, value='{"dense_weight": "ternary"}')
    return Artifact.onnx(proto, tiny_model().input)


def test_a_file_without_records_has_one_size():
    model = tiny_model()
    n = len(model.onnx_bytes)
    assert sizes_of(model) == (
        Measurement("file_bytes", n, "bytes", "measured"),
        Measurement("packed_bytes", n, "bytes", "measured"),
    )


def test_integers_in_wider_types_count_by_their_true_width():
    proto = tiny_model(weight_bits=8).proto()
    name = "kernel_quantized"
    n = int(np.prod(next(i.dims for i in proto.graph.initializer if i.name == name)))
    record_widths(proto, {name: 3})
    found = {m.name: m.value for m in sizes_of(Artifact.onnx(proto, tiny_model().input))}
    assert found["file_bytes"] - found["packed_bytes"] == n - -(-n * 3 // 8)


def test_simulated_weights_count_by_their_packed_form():
    model = tiny_model()
    proto = model.proto()
    packed = encode_layers(proto, {"kernel": ShiftAdd(3)})
    made = Artifact.onnx(with_packed_weights(proto, packed), model.input)
    found = {m.name: m.value for m in sizes_of(made)}
    assert (
        found["file_bytes"] - found["packed_bytes"]
        == packed["kernel"].values.nbytes - packed["kernel"].packed_bytes
    )


def test_weights_that_were_trained_to_fit_a_format_count_by_its_packed_form():
    assert (
        sizes(trained())["packed_bytes"] == sizes(trained())["file_bytes"] - 4 * 4 * 5 + 4 + 4
    )  # 20 trits, a scale


def test_a_weight_with_two_records_counts_once_by_its_last_format():
    """It was trained to be ternary, and then packed in another format."""
    values = {"precision": "weights_only", "weight_format": "gwq", "group_size": 4, "calibration_images": 4}
    once, twice = (QuantizeStage().apply(model, values, CONTEXT) for model in (tiny_model(), trained()))
    assert sizes(twice) == sizes(once)


@pytest.mark.parametrize("precision", ["static", "weights_only", "dynamic", "float16"])
@pytest.mark.parametrize("first", ["gwq", "shift_add", "ternary"])
def test_each_of_two_formats_counts(first, precision):
    """The file's layers were packed one after the other, by a stage each."""
    values = {
        "precision": "weights_only",
        "weight_format": first,
        "keep_float": ("kernel",),
        "weight_bits": 4,
    }
    one = trained() if first == "ternary" else QuantizeStage().apply(tiny_model(), values, CONTEXT)
    two = QuantizeStage().apply(one, {"precision": precision, "keep_float": ("dense_weight",)}, CONTEXT)
    dense = stored_weights(two.proto())["dense_weight"]
    assert dense.format == first
    assert dense.packed_bytes == stored_weights(one.proto())["dense_weight"].packed_bytes
    assert sizes(two)["file_bytes"] - sizes(two)["packed_bytes"] == 4 * 4 * 5 - dense.packed_bytes


@pytest.mark.parametrize("precision", ["static", "weights_only", "dynamic"])
@pytest.mark.parametrize("first", ["gwq", "shift_add", "ternary"])
def test_integers_of_packed_weights_count_as_such(first, precision):
    """What the file said of their former format holds no more."""
    values = {"precision": "weights_only", "weight_format": first, "weight_bits": 4}
    one = trained() if first == "ternary" else QuantizeStage().apply(tiny_model(), values, CONTEXT)
    two = QuantizeStage().apply(one, {"precision": precision}, CONTEXT)
    assert stored_weights(two.proto()) == {}
    assert sizes(two)["file_bytes"] == sizes(two)["packed_bytes"]
