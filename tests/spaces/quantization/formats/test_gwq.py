"""GWQ: outliers bit-exact in float16, ranges without them, and the published size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spaces.errors import ConfigError, StageError
from spaces.quantization.formats.base import WeightFormat
from spaces.quantization.formats.gwq import Gwq
from spaces.quantization.formats.testing import WeightFormatConformance, assert_round_trip, sample_weight
from spaces.quantization.formats.uniform import Uniform


class TestConformance(WeightFormatConformance):
    @pytest.fixture(params=[(4, 64, 0.01), (3, "channel", 0.05), (2, 16, 0.0), (3, 8, 0.5)])
    def weight_format(self, request: pytest.FixtureRequest) -> WeightFormat:
        return Gwq(*request.param)


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.float32, (6, 20), elements=st.floats(-4, 4, width=32)),
    hnp.arrays(np.float32, (6, 20), elements=st.floats(0, 1, width=32)),
    st.sampled_from([2, 3, 4]),
    st.sampled_from([0.0, 0.02, 0.1, 0.9]),
)
def test_outliers_are_exact_and_the_others_within_half_a_step_of_a_range_without_them(
    weight, gradient, bits, share
) -> None:
    packed = Gwq(bits, 10, share).encode(weight, 0, gradient)
    assert_round_trip(packed)
    n = round(share * weight.size)
    outliers = np.zeros(weight.size, bool)
    outliers[np.argsort(-gradient, axis=None, kind="stable")[:n]] = True
    threshold = gradient.ravel()[outliers].min(initial=np.inf)
    outliers = outliers.reshape(weight.shape)
    sure = (gradient > threshold) & outliers  # equal scores may go either way
    np.testing.assert_array_equal(packed.values[sure], weight[sure].astype(np.float16).astype(np.float32))
    if np.count_nonzero(gradient >= threshold) == n:  # no ties
        for row in range(6):
            for part in (slice(0, 10), slice(10, 20)):
                kept = ~outliers[row, part]
                ordinary = weight[row, part][kept]
                step = np.ptp(np.append(ordinary, 0)) / (2**bits - 1)
                error = np.abs(packed.values[row, part][kept] - ordinary).max(initial=0)
                assert error <= 0.5 * step * (1 + 2**-10) + 1e-6


def test_size_follows_the_published_formula() -> None:
    weight, bits, group, share = sample_weight((256, 512)), 3, 64, 0.01
    packed = Gwq(bits, group, share).encode(weight)
    index_bits = 17  # of 131,072 weights
    formula = (1 - share) * bits + (16 + bits) / group + share * (16 + index_bits)
    assert packed.bits_per_weight == pytest.approx(formula, rel=1e-4)


def test_large_weights_left_out_of_the_ranges_lower_the_error() -> None:
    weight = sample_weight((64, 64))

    def error(form: WeightFormat) -> float:
        return float(np.square(form.encode(weight).values - weight).sum())

    assert error(Gwq(3, 64, 0.02)) < 0.5 * error(Uniform(3, 64))
    assert error(Gwq(3, 64, 0.0)) == pytest.approx(error(Uniform(3, 64)))


def test_refuses_outliers_beyond_float16_and_unknown_shares() -> None:
    weight = np.zeros((10, 10), np.float32)
    weight[3, 3] = 1e6
    with pytest.raises(StageError, match=r"outlier of 1e\+06 does not fit float16"):
        Gwq().encode(weight)
    with pytest.raises(ConfigError, match=r"gwq.outlier_share must be in \[0, 1\), but is 1.0"):
        Gwq(outlier_share=1.0)
