"""From a real range to a grid of integers."""

import itertools
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spaces.errors import StageError
from spaces.quantization.schemes.scheme import SCHEMES, Grid, make_grid, scheme_of

reals = st.floats(-1e4, 1e4, width=32)
names = st.sampled_from(sorted(SCHEMES))
widths = st.sampled_from((4, 8, 16))


def limits(bits):
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


@given(names, reals, reals, widths)
def test_rounding_errors_are_at_most_half_a_step(name, a, b, bits):
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    grid = make_grid(scheme_of(name).activations, low, high, bits)
    values = np.linspace(low, high, 101).astype(np.float32)
    error = np.abs(grid.dequantized(values) - values.astype(np.float64))
    # The zero point is rounded, too, which can add half a step at the ends of an asymmetric range.
    ends = 1.0 if name == "asymmetric" else 0.5
    assert error.max() <= float(grid.scale) * (ends + 1e-3) + 1e-6 * max(-low, high)


@given(
    st.floats(2**-10, 8, width=32),
    st.floats(0, 1),
    st.sampled_from((4, 8)),
    st.lists(reals, min_size=1, max_size=9),
)
def test_dequantized_is_the_nearest_value_of_the_grid(step, share, bits, values):
    low, high = limits(bits)
    zero = round(low + share * (high - low))
    points = step * (np.arange(low, high + 1) - zero)
    asked = np.array([*values, 1e6, -1e6, step, points[0], points[-1]], np.float32)
    found = Grid(np.float32(step), np.array(zero), bits).dequantized(asked)
    gaps = np.abs(asked.astype(np.float64)[:, None] - points).min(axis=1)
    assert np.abs(found.astype(np.float64)[:, None] - points).min(axis=1).max() <= 1e-4 * step
    assert np.all(np.abs(found.astype(np.float64) - asked) <= gaps + 1e-4 * step)


@given(reals, reals, widths, st.booleans())
def test_steps_are_as_small_as_the_range_and_zero_allow(a, b, bits, reduced):
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    assume(high - low > 1e-3)
    n_integers = 2 ** (bits - reduced)

    def grid(name):
        return make_grid(scheme_of(name).activations, min(a, b), max(a, b), bits, reduced=reduced)

    assert (grid("asymmetric").bits, grid("asymmetric").axis) == (bits, None)
    assert grid("asymmetric").scale == pytest.approx((high - low) / (n_integers - 1), rel=1e-6)
    assert grid("symmetric").scale == pytest.approx(max(-low, high) / (n_integers / 2 - 1), rel=1e-6)
    at_zero = -n_integers / 2 - low * (n_integers - 1) / (high - low)
    assert abs(grid("asymmetric").zero_point - at_zero) <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("high", "step"), [(127.0, 1.0), (127.0 / 4, 0.25), (127.1, 2.0), (126.9, 1.0), (63.6, 1.0)]
)
def test_a_power_of_two_is_rounded_up_to_and_stays(high, step):
    assert make_grid(scheme_of("symmetric_power2").activations, -high, high, 8).scale == step


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_activations_are_left_out_where_the_grid_ends_at_zero(name):
    grid = make_grid(scheme_of(name).activations, 0.0, 1.0, 8)
    cuts_off_negative = grid.dequantized(np.full(1, -1.0, np.float32)) == 0
    assert scheme_of(name).keeps_activations == (not cuts_off_negative)


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_ranges_whose_steps_no_normal_float32_holds_have_steps_of_one(bits):
    least = float(np.finfo(np.float32).tiny) * 2.0**bits
    rule = scheme_of("symmetric").activations
    for share, low, high in itertools.product((0.0, 0.5, 0.999, 1.0, 4.0), (0, -1), (0, 1)):
        grid = make_grid(rule, low * share * least, high * share * least, bits)
        empty = share < 1 or low == high == 0
        step = 1.0 if empty else share * least / (2 ** (bits - 1) - 1)
        assert float(grid.scale) == pytest.approx(step, rel=1e-6, abs=0)


@given(names, reals, reals, widths)
def test_zero_is_exact(name, a, b, bits):
    for rule in (scheme_of(name).activations, scheme_of(name).weights, scheme_of(name).channel_weights):
        grid = make_grid(rule, min(a, b), max(a, b), bits)
        assert grid.dequantized(np.zeros(1, np.float32)) == 0
        assert limits(bits)[0] <= grid.zero_point <= limits(bits)[1]
        assert grid.scale > 0
        assert np.isfinite(grid.scale)


@given(reals, reals, widths)
def test_properties_of_each_scheme(a, b, bits):
    low, high = min(a, b), max(a, b)
    grids = {name: make_grid(row.activations, low, high, bits) for name, row in SCHEMES.items()}
    assert grids["symmetric"].zero_point == 0
    assert grids["symmetric_power2"].zero_point == 0
    mantissa, _ = np.frexp(grids["symmetric_power2"].scale)
    assert mantissa == 0.5
    assert 1 - 1e-6 <= grids["symmetric_power2"].scale / grids["symmetric"].scale < 2 * (1 + 1e-6)
    twin = "asymmetric" if low >= 0 else "symmetric"
    assert grids["symmetric_uint8"] == grids[twin] or np.isclose(
        grids["symmetric_uint8"].scale, grids[twin].scale
    )
    assert grids["symmetric_uint8"].zero_point == grids[twin].zero_point


def test_a_non_negative_tensor_uses_every_integer_or_half_of_them():
    full = make_grid(scheme_of("symmetric_uint8").activations, 0.0, 2.55, 8)
    half = make_grid(scheme_of("symmetric").activations, 0.0, 2.54, 8)
    assert (float(full.scale), int(full.zero_point)) == (pytest.approx(0.01), -128)
    assert (float(half.scale), int(half.zero_point)) == (pytest.approx(0.02), 0)


def test_one_scale_per_channel():
    weight = np.array([[1.0, -2.0], [0.5, 0.25], [0.0, 0.0]], np.float32)
    rule = scheme_of("symmetric").channel_weights
    grid = make_grid(rule, weight.min(axis=1), weight.max(axis=1), 8, axis=0)
    assert grid.scale.tolist() == pytest.approx([2 / 127, 0.5 / 127, 1.0])
    assert np.abs(grid.dequantized(weight) - weight).max() <= grid.scale.max() / 2
    assert np.all(grid.dequantized(weight)[2] == 0)  # a channel of zeros stays zero with any scale


def test_a_reduced_range_leaves_one_bit():
    weight = np.linspace(-1, 1, 999).astype(np.float32)
    grid = make_grid(scheme_of("asymmetric").weights, -1.0, 1.0, 8, reduced=True)
    integers = np.round(weight / grid.scale) + grid.zero_point
    assert (integers.min(), integers.max()) == (-64, 64)  # 2 * 64 * 255 still fits 16 bits


def test_scales_are_at_least_the_least_scale():
    for name, row in SCHEMES.items():
        grid = make_grid(row.weights, -1e-9, 1e-9, 8, least_scale=0.3)
        assert grid.scale == np.float32(0.5 if name == "symmetric_power2" else 0.3)


def test_grids_of_the_same_integers_and_steps_have_one_key():
    def key(scale=0.5, zero_point=3, bits=8, axis=0):
        return Grid(np.full(2, scale, np.float32), np.array([0, zero_point]), bits, axis).key

    assert key() == key()
    assert len({key(), key(scale=0.25), key(zero_point=4), key(bits=4), key(axis=1), key(axis=None)}) == 6
    with pytest.raises(FrozenInstanceError):  # its key is kept
        Grid(np.float32(0.5), np.array(0), 8).bits = 4


def test_an_unknown_scheme_raises_with_the_known_ones():
    with pytest.raises(StageError, match=r"'symetric'.*Did you mean 'symmetric'.*asymmetric"):
        scheme_of("symetric")
