"""Vector codebooks: size, refinement, and PV-tuning that never raises the layer's error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.errors import ConfigError, StageError
from spaces.quantization.formats.base import WeightFormat
from spaces.quantization.formats.codes import Codes, half
from spaces.quantization.formats.testing import WeightFormatConformance, assert_round_trip, sample_weight
from spaces.quantization.formats.tuned_codes import CodedLayer, tuned
from spaces.quantization.formats.uniform import Uniform


class TestConformance(WeightFormatConformance):
    @pytest.fixture(params=[(4, 4), (8, 8), (3, 2, 2), (2, 5, 2, 0)])
    def weight_format(self, request: pytest.FixtureRequest) -> WeightFormat:
        return Codes(*request.param)


def layer(seed: int, form: Codes, n_inputs: int = 13):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((6, n_inputs)).astype(np.float32)
    inputs = rng.standard_normal((n_inputs, 40)) * np.exp(rng.standard_normal((n_inputs, 1)))
    inputs += rng.standard_normal((1, 40))  # inputs that depend on each other
    return weight, inputs @ inputs.T, form.encode(weight)


def coded(weight, moments, packed) -> CodedLayer:
    form = packed.format
    missing = -weight.shape[1] % form.vector
    rows = np.pad(weight.astype(np.float64), ((0, 0), (0, missing)))
    return CodedLayer(rows, np.pad(moments, (0, missing)), *form.fields(packed.blob, weight.shape, 0))


def test_bits_per_weight_are_those_of_the_codes_and_the_codebook():
    packed = Codes(8, 4, 1, rounds=1).encode(sample_weight((256, 512)))
    assert packed.packed_bytes == 256 * 512 // 4 + 2 * 256 * 4 + 2 * 256
    assert packed.bits_per_weight < 2.2


@given(st.integers(0, 1000), st.sampled_from([Codes(3, 4), Codes(2, 2, 2), Codes(4, 3)]))
@settings(max_examples=15, deadline=None)
def test_v_step_leaves_the_codes_and_p_step_the_codebooks_and_no_step_raises_the_loss(seed, form):
    state = coded(*layer(seed, form))
    for _ in range(4):
        moved = state.moved_codebooks()
        assert np.array_equal(moved.codes, state.codes)
        assert moved.loss <= state.loss
        assert np.array_equal(half(moved.books), moved.books)
        for share in (0.1, 0.5):
            changed = moved.changed_codes(share)
            assert np.array_equal(changed.books, moved.books)
            assert (changed.codes != moved.codes).any(axis=1).sum() <= share * len(moved.codes)
            assert changed.loss <= moved.loss * (1 + 1e-9)
        state = changed


def test_tuning_lowers_the_error_of_the_outputs():
    weight, moments, packed = layer(0, Codes(4, 4), 32)
    better = tuned(packed, weight, moments, steps=8, changed_share=0.3)
    assert_round_trip(better)
    assert better.packed_bytes == packed.packed_bytes
    assert coded(weight, moments, better).loss < 0.6 * coded(weight, moments, packed).loss


def test_rounds_and_a_second_codebook_lower_the_error():
    weight = sample_weight((32, 64))

    def error(form: Codes) -> float:
        return float(np.square(form.encode(weight).values - weight).sum())

    assert error(Codes(4, 4, rounds=8)) < error(Codes(4, 4, rounds=0))
    assert error(Codes(4, 4, 2)) < error(Codes(4, 4))


def test_importance_lowers_the_weighted_error():
    weight = sample_weight((32, 64))
    importance = np.broadcast_to(np.linspace(0.01, 2, 64, dtype=np.float32) ** 2, weight.shape)

    def error(given: np.ndarray | None) -> float:
        return float((importance * (Codes(5).encode(weight, 0, given).values - weight) ** 2).sum())

    assert error(importance) < error(None)


def test_refuses_what_does_not_fit():
    weight, moments, packed = layer(0, Codes(4, 4))
    with pytest.raises(StageError, match="second moments of 13 inputs must be a square of that size"):
        tuned(packed, weight, moments[:5, :5])
    with pytest.raises(StageError, match="needs a codes weight, not uniform"):
        tuned(Uniform().encode(weight), weight, moments)
    with pytest.raises(ConfigError, match=r"codes.bits must be 2 to 12, but is 16"):
        Codes(16)
