"""The two sizes of a model."""

import numpy as np

from evaluators.base import Measurement
from evaluators.sizes import sizes_of
from evaluators.testing import tiny_model
from spaces.quantization.formats.onnx_weights import encode_layers, with_packed_weights
from spaces.quantization.formats.shift_add import ShiftAdd
from spaces.quantization.formats.stored import record_widths
from spaces.stages.artifact import Artifact


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
