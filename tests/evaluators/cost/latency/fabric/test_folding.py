from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.cost.latency.fabric.folding import fold_network
from evaluators.devices.fpga import (
    FpgaDevice,
    FpgaLayer,
    engine_cycles,
    engine_dsps,
    engine_luts,
    weight_memory_brams,
    weight_memory_luts,
)
from spaces.errors import EvaluationError

ZEDBOARD = FpgaDevice(luts=53_200, dsps=220, brams=280, clock_hz=143e6)
ZC706 = FpgaDevice(luts=218_600, dsps=900, brams=1_090, clock_hz=187e6)
ZYBO = FpgaDevice(luts=17_600, dsps=80, brams=120, clock_hz=125e6)


def resnet8(weight_bits=8, activation_bits=8):
    """MLPerf Tiny's image classifier: (rows, columns, output pixels)."""
    shapes = [
        *[(16, 27, 1024), (16, 144, 1024), (16, 144, 1024)],
        *[(32, 144, 256), (32, 288, 256), (32, 16, 256)],
        *[(64, 288, 64), (64, 576, 64), (64, 32, 64), (10, 64, 1)],
    ]
    return [FpgaLayer(f"layer{i}", *shape, weight_bits, activation_bits) for i, shape in enumerate(shapes)]


def assert_consistent(estimate, layers, device):
    for folding, layer in zip(estimate.foldings, layers, strict=True):
        products = folding.pe * folding.simd
        in_dsp, in_bram = folding.multiplier == "dsp", folding.weights_in_bram
        memory = 0 if in_bram else weight_memory_luts(layer, products)
        assert folding.cycles == engine_cycles(layer, folding.pe, folding.simd)
        assert folding.luts == engine_luts(layer, folding.pe, folding.simd, folding.multiplier) + memory
        assert folding.dsps == (engine_dsps(layer, folding.pe, folding.simd) if in_dsp else 0)
        assert folding.brams == (weight_memory_brams(layer, products) if in_bram else 0)
    luts, dsps, brams = device.usable
    assert sum(f.luts for f in estimate.foldings) == estimate.luts <= luts
    assert sum(f.dsps for f in estimate.foldings) == estimate.dsps <= dsps
    assert sum(f.brams for f in estimate.foldings) == estimate.brams <= brams
    cycles = [f.cycles for f in estimate.foldings]
    assert estimate.fps == pytest.approx(device.clock_hz / max(cycles))
    assert estimate.interval_ms == pytest.approx(1e3 / estimate.fps)
    assert estimate.latency_ms == pytest.approx(1e3 * sum(cycles) / device.clock_hz)


# Latency of fpgaConvNet's int8 designs of this network in MLPerf Tiny v1.1. That tool's engines differ from
# FINN's, so the measured value only has to lie between the bounds.
@pytest.mark.parametrize(("device", "measured_ms"), [(ZEDBOARD, 0.41), (ZC706, 0.15), (ZYBO, 3.15)])
def test_measured_latencies_lie_between_the_bounds(device, measured_ms):
    layers = resnet8()
    assert sum(layer.macs for layer in layers) == 12_501_632
    estimate = fold_network(layers, device)
    assert_consistent(estimate, layers, device)
    assert estimate.interval_ms < measured_ms < estimate.latency_ms


def test_narrower_weights_and_larger_devices_run_faster():
    fps = [fold_network(resnet8(b, b), ZEDBOARD).fps for b in (2, 4, 8, 16)]
    assert fps == sorted(fps, reverse=True)
    assert fps[0] > 2 * fps[2]
    larger = replace(ZEDBOARD, luts=2 * ZEDBOARD.luts, dsps=2 * ZEDBOARD.dsps, brams=2 * ZEDBOARD.brams)
    assert fold_network(resnet8(), larger).fps > 1.5 * fps[2]


def cheapest_luts(layer, products):
    return min(
        engine_luts(layer, pe, products // pe) + weight_memory_luts(layer, products)
        for pe in range(1, layer.mh + 1)
        if layer.mh % pe == 0 == products % pe and layer.mw % (products // pe) == 0
    )


def test_no_layer_is_faster_than_the_target_unless_that_is_cheaper():
    layers = resnet8()
    estimate = fold_network(layers, ZC706)
    target = max(f.cycles for f in estimate.foldings)
    for folding, layer in zip(estimate.foldings, layers, strict=True):
        products = {p * s for p in range(1, layer.mh + 1) for s in range(1, layer.mw + 1)}
        slower = [n for n in products if layer.macs / target <= n < folding.pe * folding.simd]
        allowed = [
            n
            for n in slower
            if any(layer.mh % p == 0 == n % p and layer.mw % (n // p) == 0 for p in range(1, n + 1))
        ]
        chosen = cheapest_luts(layer, folding.pe * folding.simd)
        assert all(cheapest_luts(layer, n) >= chosen for n in allowed)


LAYERS = st.lists(
    st.builds(
        FpgaLayer,
        name=st.just("l"),
        mh=st.sampled_from([1, 6, 10, 16]),
        mw=st.sampled_from([1, 9, 27, 32]),
        output_pixels=st.integers(1, 64),
        weight_bits=st.integers(1, 16),
        activation_bits=st.integers(1, 16),
        output_bits=st.sampled_from([None, 2, 4]),
    ),
    min_size=1,
    max_size=5,
)


@settings(deadline=None)
@given(LAYERS, st.integers(1, 60_000), st.integers(0, 200), st.integers(0, 100))
def test_every_estimate_fits_the_device(layers, luts, dsps, brams):
    device = FpgaDevice(luts, dsps, brams, 1e8)
    try:
        estimate = fold_network(layers, device)
    except EvaluationError:
        return
    assert_consistent(estimate, layers, device)


@settings(deadline=None)
@given(LAYERS.map(lambda layers: layers[0]), st.integers(500, 20_000))
def test_one_layer_in_look_up_tables_is_solved_exactly(layer, luts):
    device = FpgaDevice(luts, 0, 0, 1e8, lut_fraction=1.0)
    fitting = [
        engine_cycles(layer, pe, simd)
        for pe in range(1, layer.mh + 1)
        for simd in range(1, layer.mw + 1)
        if layer.mh % pe == 0 == layer.mw % simd
        and engine_luts(layer, pe, simd) + weight_memory_luts(layer, pe * simd) <= luts
    ]
    if fitting:
        assert fold_network([layer], device).foldings[0].cycles == min(fitting)
    else:
        with pytest.raises(EvaluationError, match="does not fit"):
            fold_network([layer], device)


def test_a_network_that_does_not_fit_raises_with_the_shortage():
    with pytest.raises(EvaluationError, match=r"needs \d+ look-up tables of 70 usable ones"):
        fold_network(resnet8(), FpgaDevice(100, 10, 10, 1e8))
    with pytest.raises(EvaluationError, match="layers"):
        fold_network([], ZEDBOARD)
