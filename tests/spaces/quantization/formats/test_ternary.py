"""Ternary weights: three values, MoTE's rule, and the bytes of both packings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spaces.errors import ConfigError, InputError
from spaces.quantization.formats.base import WeightFormat
from spaces.quantization.formats.ternary import Ternary
from spaces.quantization.formats.testing import WeightFormatConformance, assert_round_trip, sample_weight


class TestConformance(WeightFormatConformance):
    @pytest.fixture(params=[("tensor", "base3"), ("channel", "two_bits"), (16, "base3", "float32")])
    def weight_format(self, request: pytest.FixtureRequest) -> WeightFormat:
        return Ternary(*request.param)


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float32, (4, 9), elements=st.floats(-4, 4, width=32)))
def test_rule_and_error_bound(weight: np.ndarray) -> None:
    packed = Ternary(scale_dtype="float32").encode(weight)
    assert_round_trip(packed)
    sizes = np.unique(np.abs(weight[weight != 0]))
    g = sizes[0] if len(sizes) == 1 else np.float32(np.abs(weight).mean(dtype=np.float64)) or np.float32(1)
    np.testing.assert_allclose(packed.values, g * np.clip(np.round(weight / g), -1, 1), rtol=1e-6)
    bound = np.maximum(g / 2, np.abs(weight) - g)
    assert (np.abs(packed.values - weight) <= bound * (1 + 1e-5) + 1e-30).all()


@given(
    weight=hnp.arrays(np.float32, (3, 7), elements=st.floats(-4, 4, width=32)),
    group=st.sampled_from(["tensor", "channel", 2]),
    dtype=st.sampled_from(["float16", "float32"]),
)
def test_what_was_encoded_is_encoded_as_it_is(weight: np.ndarray, group: str | int, dtype: str) -> None:
    form = Ternary(group, scale_dtype=dtype)
    once = form.encode(weight)
    again = form.encode(once.decoded())
    np.testing.assert_array_equal(again.values, once.values)
    np.testing.assert_array_equal(form.encode(again.decoded()).blob, again.blob)


def test_sparse_ternary_weights_do_not_shrink() -> None:
    weight = np.zeros((4, 8), np.float32)
    weight[0, 0], weight[1, 3] = 0.5, -0.5
    np.testing.assert_array_equal(Ternary().encode(weight).values, weight)


def test_a_tensor_has_three_values_and_a_fifth_of_a_byte_a_weight() -> None:
    packed = Ternary().encode(sample_weight((64, 65)))
    assert len(np.unique(packed.values)) == 3
    assert packed.packed_bytes == 64 * 65 / 5 + 2
    assert Ternary(packing="two_bits").encode(sample_weight((64, 65))).packed_bytes == 64 * 65 / 4 + 2


def test_refuses_other_packings_and_damaged_blobs() -> None:
    with pytest.raises(ConfigError, match=r"ternary.packing must be one of"):
        Ternary(packing="base4")
    with pytest.raises(InputError, match="trit above 2"):
        Ternary(packing="two_bits").decode(b"\xff\x00\x3c", (1, 4))
