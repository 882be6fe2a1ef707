"""QFX's fixed point: the bit-exact cast, K-hot magnitudes and their short codes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spaces.errors import ConfigError
from spaces.quantization.formats.base import WeightFormat
from spaces.quantization.formats.fixed_point import FixedPoint, k_hot
from spaces.quantization.formats.testing import WeightFormatConformance, assert_round_trip, sample_weight

WEIGHTS = hnp.arrays(np.float32, (4, 9), elements=st.floats(-40, 40, width=32))


class TestConformance(WeightFormatConformance):
    @pytest.fixture(params=[{}, {"bits": 5}, {"k_hot": 1}, {"bits": 12, "k_hot": 3}, {"fraction_bits": 7}])
    def weight_format(self, request: pytest.FixtureRequest) -> WeightFormat:
        return FixedPoint(**request.param)


@settings(max_examples=40, deadline=None)
@given(WEIGHTS, st.integers(2, 16), st.integers(0, 3), st.sampled_from([None, -2, 0, 5]))
def test_round_trip_and_number_of_set_bits(weight, n_bits, k, fraction) -> None:
    form = FixedPoint(n_bits, fraction, k)
    packed = form.encode(weight)
    assert_round_trip(packed)
    integers = form.integers(weight, int(np.int8(packed.blob[-1:][0] - 256 * (packed.blob[-1] > 127))))
    if k:
        assert np.bitwise_count(np.abs(integers)).max() <= k
    elif fraction is None:  # nothing overflows, so the error is at most half of the last bit
        step = 2.0 ** -int(np.frombuffer(packed.blob[-1:], np.int8)[0])
        assert np.abs(packed.values - weight).max() <= step / 2 * (1 + 1e-6)


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.float32, (3, 8), elements=st.floats(-4, 4, width=32)),
    hnp.arrays(np.float32, (8, 2), elements=st.floats(-4, 4, width=32)),
    st.sampled_from(["nearest", "truncate"]),
    st.sampled_from(["saturate", "wrap"]),
    st.integers(0, 3),
)
def test_integer_simulation_is_bit_exact(weight, x, rounding, overflow, k) -> None:
    form = FixedPoint(6, 4, k, rounding, overflow)
    activations = FixedPoint(8, 5, 0, rounding, overflow)
    packed, inputs = form.encode(weight), activations.integers(x, 5)
    product = form.integers(weight, 4) @ inputs
    simulated = packed.values.astype(np.float64) @ np.ldexp(inputs.astype(np.float64), -5)
    assert np.array_equal(np.ldexp(product.astype(np.float64), -9), simulated)


def test_cast_by_hand() -> None:
    x = np.array([1.3, -1.3, 100, -100, 0.13])
    assert FixedPoint(6, 4).integers(x, 4).tolist() == [21, -21, 31, -32, 2]
    assert FixedPoint(6, 4, rounding="truncate").integers(x, 4).tolist() == [20, -21, 31, -32, 2]
    assert FixedPoint(6, 4, overflow="wrap").integers(x, 4).tolist() == [21, -21, 0, 0, 2]
    assert k_hot(np.array([0, 21, -21, 7]), 2).tolist() == [0, 20, -20, 6]


@pytest.mark.parametrize(("k", "code_bits"), [(0, 8), (1, 4), (2, 6)])
def test_k_hot_codes_are_short(k: int, code_bits: int) -> None:
    packed = FixedPoint(8, k_hot=k).encode(sample_weight((16, 16)))
    assert packed.packed_bytes == 256 * code_bits // 8 + 1


def test_more_set_bits_lower_the_error() -> None:
    weight = sample_weight((32, 32))
    errors = [np.square(FixedPoint(8, k_hot=k).encode(weight).values - weight).sum() for k in (1, 2, 3, 0)]
    assert errors == sorted(errors, reverse=True)


def test_refuses_unknown_options() -> None:
    for options in (
        {"bits": 17},
        {"k_hot": 4},
        {"rounding": "up"},
        {"overflow": "none"},
        {"fraction_bits": 200},
    ):
        with pytest.raises(ConfigError, match=r"fixed_point\.\w+ must be"):
            FixedPoint(**options)
