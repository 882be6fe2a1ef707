import pytest

from evaluators.testing import tiny_model
from spaces.errors import InputError
from spaces.models.weight_formats import KEY, recorded_formats


def with_entry(text):
    proto = tiny_model().proto()
    proto.metadata_props.add(key=KEY, value=text)
    return proto.SerializeToString()


def test_weights_that_are_no_floats_any_more_are_left_out():
    found = recorded_formats(with_entry('{"kernel": "ternary", "gone": "ternary"}'))
    assert found == {"kernel": ("ternary", (4, 3, 3, 3))}
    assert recorded_formats(tiny_model().onnx_bytes) == {}


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_damaged_entry_raises(text):
    with pytest.raises(InputError, match=r"metadata 'paredown\.weight_formats' is damaged"):
        recorded_formats(with_entry(text))
