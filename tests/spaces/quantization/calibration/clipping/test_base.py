"""The ranges of the clipping methods."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.quantization.calibration.clipping.base import ClipContext, windows
from spaces.quantization.calibration.clipping.kl import MAX_BINS
from spaces.quantization.calibration.clipping.methods import clippings
from spaces.quantization.calibration.histogram import Distribution
from spaces.quantization.schemes.scheme import make_grid, scheme_of

RNG = np.random.default_rng(0)
HEAVY = (RNG.standard_normal(100_000) * np.exp(RNG.standard_normal(100_000))).astype(np.float32)
SCHEMES = ("asymmetric", "symmetric", "symmetric_uint8", "symmetric_power2")


def histogram_of(values):
    found = Distribution()
    assert found.add(np.asarray(values, np.float32))
    return found.histogram()


def clipped(name, values, scheme="asymmetric", bits=8, percentile=99.99):
    context = ClipContext(scheme_of(scheme).activations, bits, percentile)
    return clippings()[name].method(histogram_of(values), context)


def squared_error(values, span, scheme="asymmetric", bits=8):
    grid = make_grid(scheme_of(scheme).activations, *span, bits)
    inside = np.clip(values, min(span[0], 0), max(span[1], 0))
    return float(np.square(grid.dequantized(inside) - values, dtype=np.float64).mean())


def test_the_names_are_the_knobs_values():
    assert set(clippings()) == {"max", "kl", "percentile", "mse"}


@given(st.sampled_from(sorted(clippings())), st.sampled_from(SCHEMES), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_range_is_never_wider_than_the_values(name, scheme, seed):
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal(500) * rng.uniform(0.01, 100) + rng.uniform(-50, 50)).astype(np.float32)
    low, high = clipped(name, values, scheme)
    slack = 1e-6 * np.abs(values).max()
    assert min(values.min(), 0) - slack <= low <= high <= max(values.max(), 0) + slack
    assert low < high


def test_max_is_the_range_of_the_values():
    assert clipped("max", HEAVY) == (HEAVY.min(), HEAVY.max())


@pytest.mark.parametrize(
    "values", [HEAVY, np.maximum(HEAVY, 0), np.minimum(HEAVY, 0)], ids=["both", "up", "down"]
)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["kl", "mse", "percentile"])
def test_a_heavy_tail_is_clipped(name, scheme, values):
    low, high = clipped(name, values, scheme, percentile=99.9)
    # Squared errors of outliers are large, so the least squared error keeps more of them.
    assert max(-low, high) < (0.97 if name == "mse" else 0.75) * np.abs(values).max()
    assert (low == 0) == (values.min() == 0)
    assert (high == 0) == (values.max() == 0)


@pytest.mark.parametrize("name", ["kl", "mse", "percentile"])
@pytest.mark.parametrize("low", [0.0, -1.0])
def test_a_uniform_distribution_is_hardly_clipped(name, low):
    found = clipped(name, RNG.uniform(low, 1.0, 100_000))
    assert found == pytest.approx((low, 1.0), abs=0.02)


def test_zeros_after_a_relu_have_no_effect():
    values = np.maximum(HEAVY, 0)
    padded = np.concatenate([values, np.zeros(900_000, np.float32)])
    for name in ("kl", "mse"):
        assert clipped(name, padded) == pytest.approx(clipped(name, values), rel=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("values", [HEAVY, np.maximum(HEAVY, 0)], ids=["both", "up"])
def test_mse_has_the_least_error(scheme, values):
    mse = squared_error(values, clipped("mse", values, scheme), scheme)
    for other in ("max", "kl", "percentile"):
        assert mse <= 1.05 * squared_error(values, clipped(other, values, scheme), scheme)


def test_percentiles_equal_numpys():
    for percentile in (90.0, 95.0, 99.0):
        low, high = clipped("percentile", HEAVY, percentile=percentile)
        assert (low > HEAVY).mean() <= 1 - percentile / 100 + 1e-9
        assert (high < HEAVY).mean() <= 1 - percentile / 100 + 1e-9
        width = (HEAVY.max() - HEAVY.min()) / 2048
        wanted = np.percentile(HEAVY, [100 - percentile, percentile])
        assert (low, high) == pytest.approx(tuple(wanted), abs=float(1.01 * width))


def test_the_hundredth_percentile_is_the_whole_range():
    assert clipped("percentile", HEAVY, percentile=100.0) == pytest.approx((HEAVY.min(), HEAVY.max()))


def test_kl_does_not_clip_if_the_histogram_is_coarser_than_the_grid():
    assert clippings()["kl"].most_bits < 16
    assert clipped("kl", HEAVY, bits=16) == pytest.approx((HEAVY.min(), HEAVY.max()))


def test_a_constant_tensor():
    for name in clippings():
        for value in (0.0, 3.0, -2.0):
            low, high = clipped(name, np.full(10, value))
            assert low <= value <= high or name == "max"


def test_windows_grow_to_the_whole_range():
    lows, highs = windows(histogram_of([-2.0, 1.0, 5.0]), 8)
    assert (lows[-1], highs[-1]) == (-2.0, 5.0)
    assert np.all(np.diff(highs) > 0)
    assert lows[0] == -highs[0] == -5 / 8


def kl_step_by_step(histogram, context):
    """The search as described on the slides. Returns the divergence of every candidate by its range."""
    lows, highs = windows(histogram, 256)
    coarse, found = histogram.coarser(MAX_BINS), {}
    counts, edges = coarse.counts, coarse.edges
    for low, high, step in zip(lows, highs, context.step(lows, highs), strict=True):
        from_low = edges[1:] > low if low > edges[0] else edges[1:] >= low
        inside = np.flatnonzero(from_low & (edges[:-1] < high if high < edges[-1] else edges[:-1] <= high))
        if not len(inside):
            continue
        first, last = inside[0], inside[-1] + 1
        n_levels = round((high - low) / step) + 1
        kept = counts[first:last].sum()
        if last - first < n_levels or kept == 0:
            continue
        reference = counts[first:last].astype(float)
        reference[0] += counts[:first].sum()
        reference[-1] += counts[last:].sum()
        quantized = np.full(last - first, 0.5 / counts.sum())
        starts = [i * (last - first) // n_levels for i in range(n_levels + 1)]
        for start, end in pairwise(starts):
            group = counts[first + start : first + end]
            if group.any():
                quantized[start:end][group > 0] = group[group > 0].mean() / kept
        p = reference / counts.sum()
        found[float(low), float(high)] = float((p[p > 0] * np.log(p[p > 0] / quantized[p > 0])).sum())
    return found


def mse_step_by_step(histogram, context):
    lows, highs = windows(histogram, 256)
    centres = (histogram.edges[1:] + histogram.edges[:-1]) / 2
    found = {}
    for low, high, step in zip(lows, highs, context.step(lows, highs), strict=True):
        outside = centres - np.clip(centres, low, high)
        inside = histogram.counts[outside == 0].sum()
        found[float(low), float(high)] = float((outside**2 * histogram.counts).sum() + inside * step**2 / 12)
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("n_values", [60, 3_000, 100_000])
@pytest.mark.parametrize(("name", "slowly"), [("kl", kl_step_by_step), ("mse", mse_step_by_step)])
def test_the_vectorized_search_equals_the_plain_one(name, slowly, n_values, scheme):
    rng = np.random.default_rng(n_values)
    for values in (HEAVY[:n_values], np.maximum(HEAVY[:n_values], 0), rng.uniform(2, 3, n_values)):
        histogram, context = histogram_of(values), ClipContext(scheme_of(scheme).activations, 5, 99.9)
        wanted = slowly(histogram, context)
        found = clippings()[name].method(histogram, context)
        assert wanted[found] == pytest.approx(min(wanted.values()), rel=1e-9)
