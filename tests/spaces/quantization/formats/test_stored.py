"""The records of packed weights in a model's metadata."""

import numpy as np
import pytest
from onnx import numpy_helper

from spaces.errors import InputError
from spaces.quantization.formats.stored import (
    KEY,
    StoredWeight,
    packed_bytes,
    record_stored,
    record_widths,
    simulated_layers,
    stored_weights,
)


@pytest.fixture
def proto(lonely):
    return lonely.proto()


def test_records_are_read_back_and_added_to(proto):
    first, second = StoredWeight(10, ("only.weight",), "gwq", {"bits": 3}, True), StoredWeight(5, ("b", "c"))
    assert stored_weights(proto) == {}
    record_stored(proto, {"one": first})
    record_stored(proto, {"two": second})
    assert stored_weights(proto) == {"one": first, "two": second}
    assert [p.key for p in proto.metadata_props].count(KEY) == 1
    assert simulated_layers(proto.SerializeToString()) == {"one": "weight_format=gwq"}


def test_packed_bytes_replace_the_data_of_the_recorded_tensors(proto):
    plain = proto.SerializeToString()
    assert packed_bytes(plain) == len(plain)
    record_widths(proto, {"only.weight": 5})  # 24 weights
    model = proto.SerializeToString()
    assert packed_bytes(model) == len(model) - 24 * 4 + 15


def test_data_that_is_not_raw_counts_too(proto):
    values = numpy_helper.to_array(proto.graph.initializer[0])
    record_widths(proto, {"only.weight": 5})
    raw = packed_bytes(proto.SerializeToString())
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.float_data.extend(values.ravel().astype(np.float32))
    assert abs(packed_bytes(proto.SerializeToString()) - raw) < 8


def test_refuses_unknown_tensors_and_damaged_records(proto):
    with pytest.raises(InputError, match=r"Unknown initializer 'onlyweight' in the widths of packed weights"):
        record_widths(proto, {"onlyweight": 3})
    record_stored(proto, {"one": StoredWeight(10, ("gone",))})
    with pytest.raises(InputError, match=r"one has no tensor 'gone'"):
        packed_bytes(proto.SerializeToString())
    for text in ("{", "[1]", '{"a": {"packed_bytes": 1}}'):
        proto.metadata_props[0].value = text
        with pytest.raises(InputError, match=r"metadata 'paredown.weights' is damaged"):
            packed_bytes(proto.SerializeToString())
