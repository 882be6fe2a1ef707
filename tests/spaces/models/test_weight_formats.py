import pytest

from evaluators.testing import tiny_model
from spaces.errors import InputError
from spaces.models.weight_formats import KEY, trained_formats


def with_entry(text):
    proto = tiny_model().proto()
    proto.metadata_props.add(key=KEY, value=text)
    return proto


def test_weights_that_are_no_floats_any_more_are_left_out():
    found = trained_formats(with_entry('{"kernel": "ternary", "gone": "ternary"}'))
    assert found == {"kernel": ("ternary", (4, 3, 3, 3))}
    assert trained_formats(tiny_model().proto()) == {}


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_damaged_entry_raises(text):
    with pytest.raises(InputError, match=r"metadata 'paredown\.weight_formats' is damaged"):
        trained_formats(with_entry(text))
