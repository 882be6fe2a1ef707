import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.cost.graph import Geometry, Kernel, OpGraph
from evaluators.cost.latency.residual.kernel import KernelResidual
from evaluators.cost.latency.residual.kernel_features import FEATURES, TERMS, formula_terms, kernel_features
from evaluators.cost.latency.roofline import roofline
from evaluators.devices.device import Device
from evaluators.profile.learn import Timed, fit_residual, robust_nnls

DEVICE = Device(
    "d",
    runtime="r",
    macs_per_s={"float32": {"default": 1e9}},
    memory_bandwidth_bytes_per_s=1e9,
    bound="sum",
)


def kernel(op="Conv", macs=1000, channels=16, kind="conv", n_bytes=100):
    geometry = Geometry(channels, channels, (3, 3), out_size=(8, 8))
    return Kernel(
        "k",
        op,
        kind,
        "float32",
        macs,
        n_bytes,
        ("a",),
        ("b",),
        n_bytes,
        n_bytes,
        elements=64,
        geometry=geometry,
    )


def graph(*kernels):
    return OpGraph(kernels, ("a",), ("b",), {"a": 0, "b": 0}, 0, {})


def networks(truth, n=120, seed=0):
    """Networks of 5 kernels each that take `truth(kernel)` us."""
    random = np.random.default_rng(seed)
    samples = []
    for _ in range(n):
        channels = 16 * random.integers(1, 20, 5) + 8 * random.integers(0, 2, 5)
        drawn = [kernel(macs=int(random.integers(10_000, 1_000_000)), channels=int(c)) for c in channels]
        times = np.array([truth(k) for k in drawn])
        samples.append(Timed(graph(*drawn), times, float(times.sum())))
    return samples


def awkward(k):
    """Time in us; channel counts that are no multiple of 16 take 1.5 times as long."""
    return (k.macs / 5e3 + 2) * (1.5 if k.geometry.in_channels % 16 else 1.0)


def test_learns_times_that_the_profile_cannot_express():
    residual = fit_residual(networks(awkward), DEVICE, seed=0, rounds=150)
    error = []
    for network in networks(awkward, n=30, seed=1):
        base = roofline(network.graph, DEVICE).kernel_ms
        corrected = residual.corrected_ms(network.graph.kernels, base) * 1e3
        error.append(abs(corrected.sum() / network.total_us - 1))
    assert np.median(error) < 0.05


def test_the_same_seed_gives_the_same_residual_and_the_file_round_trips():
    samples = networks(awkward, n=40)
    residual = fit_residual(samples, DEVICE, seed=3, rounds=20)
    again = fit_residual(samples, DEVICE, seed=3, rounds=20)
    read = KernelResidual.from_json(json.loads(json.dumps(residual.to_json())))
    kernels = samples[0].graph.kernels
    wanted = residual.corrected_ms(kernels, np.ones(5))
    np.testing.assert_array_equal(again.corrected_ms(kernels, np.ones(5)), wanted)
    np.testing.assert_allclose(read.corrected_ms(kernels, np.ones(5)), wanted, rtol=1e-4)


def test_times_of_operators_without_a_formula_are_unchanged():
    residual = fit_residual(networks(awkward, n=40), DEVICE, seed=0, rounds=10)
    strange = kernel("Strange", kind="other")
    assert residual.corrected_ms([strange, kernel()], np.array([3.0, 1.0]))[0] == 3.0


@given(
    st.lists(
        st.tuples(st.integers(0, 10**9), st.integers(1, 4096), st.integers(0, 10**8)), min_size=1, max_size=20
    )
)
def test_features_are_finite_and_have_one_row_per_kernel(drawn):
    kernels = [kernel(macs=m, channels=c, n_bytes=b) for m, c, b in drawn]
    features, terms = kernel_features(kernels, np.zeros(len(kernels))), formula_terms(kernels)
    assert features.shape == (len(kernels), len(FEATURES))
    assert terms.shape == (len(kernels), len(TERMS))
    assert np.isfinite(features).all()
    assert (terms >= 0).all()


def test_bytes_beyond_the_cache_depend_on_the_whole_network():
    column = TERMS.index("weight_bytes_beyond_1_mib")
    in_small_network = formula_terms([kernel(n_bytes=1000)])[0, column]
    in_large_network = formula_terms([kernel(n_bytes=1000), kernel(n_bytes=10**7)])[0, column]
    assert in_small_network == 0
    assert 800 < in_large_network <= 1000


def test_the_formula_is_robust_against_outliers():
    random = np.random.default_rng(0)
    terms = random.uniform(1, 100, (200, 2))
    times = terms @ [2.0, 0.5]
    times[::20] *= 10
    assert robust_nnls(terms, times, 0.1) == pytest.approx([2.0, 0.5], rel=0.03)


def test_is_fast_enough_for_every_trial():
    from time import perf_counter

    residual = fit_residual(networks(awkward, n=60), DEVICE, seed=0, rounds=300)
    kernels = [k for network in networks(awkward, n=20, seed=2) for k in network.graph.kernels]  # 100
    times = []
    for _ in range(5):
        start = perf_counter()
        residual.corrected_ms(kernels, np.ones(100))
        times.append(perf_counter() - start)
    assert min(times) < 0.1  # about 3 ms on the development machine; the bound only catches gross regressions


@pytest.mark.parametrize(("channels", "filled"), [(16, 1.0), (17, 17 / 32), (32, 1.0), (3, 3 / 16)])
def test_features_contain_the_filled_share_of_blocks(channels, filled):
    columns = kernel_features([kernel(channels=channels)], np.ones(1))[0]
    assert columns[FEATURES.index("out_channels_filled_to_16")] == pytest.approx(filled)
