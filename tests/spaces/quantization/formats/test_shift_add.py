"""ShiftAddLLM's format: power-of-two sums, the exact integer product, and refinement that never hurts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spaces.errors import ConfigError, StageError
from spaces.quantization.formats.base import WeightFormat
from spaces.quantization.formats.shift_add import ShiftAdd, bits_by_share, layer_score, shift_add_product
from spaces.quantization.formats.testing import WeightFormatConformance, assert_round_trip, sample_weight
from spaces.quantization.formats.uniform import Uniform

WEIGHTS = hnp.arrays(np.float32, (5, 12), elements=st.floats(-4, 4, width=32))
OPTIONS = st.builds(
    ShiftAdd,
    st.integers(1, 4),
    st.sampled_from(["tensor", "channel", 1, 5, 100]),
    st.integers(1, 4),
    st.integers(0, 3),
)


class TestConformance(WeightFormatConformance):
    @pytest.fixture(params=[(3, 64, 2), (2, "channel", 1), (4, 16, 3), (1, "tensor", 2)])
    def weight_format(self, request: pytest.FixtureRequest) -> WeightFormat:
        return ShiftAdd(*request.param)


@settings(max_examples=40, deadline=None)
@given(WEIGHTS, OPTIONS)
def test_every_scale_is_a_sum_of_few_powers_of_two_and_every_weight_a_sum_of_scales(weight, form) -> None:
    packed = form.encode(weight)
    assert_round_trip(packed)
    signs, exponents = form.scales(packed)
    assert signs.shape[1:] == (form.bits, form.terms)
    scales = np.ldexp(signs.astype(float), exponents).sum(axis=-1)  # (n_groups, bits)
    patterns = np.array(np.meshgrid(*[[-1.0, 1.0]] * form.bits, indexing="ij")).reshape(form.bits, -1)
    sums = (scales @ patterns).astype(np.float32)
    rows = packed.values.reshape(1, -1) if form.group == "tensor" else packed.values
    size = form.group if isinstance(form.group, int) else rows.shape[1]
    parts = [row[i : i + size] for row in rows for i in range(0, len(row), size)]
    assert all(np.isin(part, allowed).all() for part, allowed in zip(parts, sums, strict=True))


@settings(max_examples=40, deadline=None)
@given(WEIGHTS, OPTIONS, hnp.arrays(np.int64, (12, 3), elements=st.integers(-128, 127)))
def test_product_by_shifts_and_additions_is_that_of_the_dequantized_weights(weight, form, x) -> None:
    if form.group == "tensor":
        form = ShiftAdd(form.bits, "channel", form.terms, form.rounds)
    packed = form.encode(weight)
    product, exponent = shift_add_product(packed, x)
    # The weights are integers times 2^exponent, so that Python's integers give the product without rounding.
    integers = np.ldexp(packed.values.astype(np.float64), -exponent)
    assert (integers == np.round(integers)).all()
    exact = integers.astype(np.int64).astype(object) @ x.astype(object)
    assert (product == exact).all()
    assert np.array_equal(
        packed.values.astype(np.float64) @ x, np.ldexp(product.astype(np.float64), exponent)
    )


@settings(max_examples=40, deadline=None)
@given(WEIGHTS, st.integers(1, 3))
def test_rounds_never_raise_the_error(weight, n_bits) -> None:
    errors = [
        float(np.square(ShiftAdd(n_bits, 4, 2, rounds).encode(weight).values - weight).sum(dtype=float))
        for rounds in (0, 1, 4)
    ]
    assert errors[0] * (1 + 1e-6) + 1e-9 >= errors[1]
    assert errors[1] * (1 + 1e-6) + 1e-9 >= errors[2]


def test_importance_lowers_the_weighted_error() -> None:
    weight = sample_weight((32, 64))
    importance = np.broadcast_to(np.linspace(0.01, 2, 64, dtype=np.float32) ** 2, weight.shape)

    def error(given: np.ndarray | None) -> float:
        return float((importance * (ShiftAdd(2).encode(weight, 0, given).values - weight) ** 2).sum())

    assert error(importance) < error(None)


def test_fits_normal_weights_better_than_a_uniform_grid_of_as_many_bits() -> None:
    weight = np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32)

    def error(form: WeightFormat) -> float:
        return float(np.square(form.encode(weight).values - weight).sum())

    assert error(ShiftAdd(3, "channel", 3)) < 0.8 * error(Uniform(3, "channel"))


def test_bits_by_share_gives_the_least_sensitive_layers_the_fewest_bits() -> None:
    scores = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 4.0}
    sizes = {"a": 10, "b": 40, "c": 40, "d": 10}
    assert bits_by_share(scores, sizes, {2: 0.8, 3: 0.2}) == {"b": 2, "c": 2, "a": 3, "d": 3}
    assert bits_by_share(scores, sizes, {3: 1.0}) == dict.fromkeys("abcd", 3)
    with pytest.raises(StageError, match="must add up to 1"):
        bits_by_share(scores, sizes, {2: 0.5})


def test_layer_score_grows_with_the_weights_and_their_importance() -> None:
    weight = sample_weight((4, 5))
    assert layer_score(2 * weight) == pytest.approx(8 * layer_score(weight))
    assert layer_score(weight, importance=np.full(5, 4.0)) == pytest.approx(8 * layer_score(weight))


def test_refuses_what_it_cannot_hold() -> None:
    with pytest.raises(StageError, match=r"above 2\^120"):
        ShiftAdd().encode(np.full((1, 2), 3e38, np.float32))
    with pytest.raises(ConfigError, match=r"shift_add.terms must be 1 to 4, but is 5"):
        ShiftAdd(terms=5)
    with pytest.raises(StageError, match="needs a shift_add weight, not uniform"):
        shift_add_product(Uniform().encode(np.ones((1, 2), np.float32)), np.ones((2, 1), np.int64))
