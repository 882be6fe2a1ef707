from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.devices.fpga import (
    FpgaDevice,
    FpgaLayer,
    accumulator_bits,
    engine_cycles,
    engine_dsps,
    engine_luts,
    multiplier_luts,
    products_per_dsp,
    weight_memory_brams,
    weight_memory_luts,
)
from spaces.errors import ConfigError, EvaluationError

LAYER = FpgaLayer("fc", mh=64, mw=64, output_pixels=1, weight_bits=4, activation_bits=4)


@pytest.mark.parametrize(
    ("weight_bits", "activation_bits", "luts"),
    [(2, 2, 4), (4, 4, 24), (8, 4, 36), (4, 8, 36), (8, 8, 80), (16, 16, 352)],
)
def test_look_up_tables_of_multipliers(weight_bits, activation_bits, luts):
    assert multiplier_luts(weight_bits, activation_bits) == luts


@pytest.mark.parametrize(
    ("weight_bits", "activation_bits", "products"),
    [
        (1, 1, 4),
        (4, 4, 4),
        (4, 8, 2),
        (8, 8, 2),
        (9, 8, 1),
        (16, 16, 1),
        (27, 18, 1),
        (18, 27, 1),
        (19, 19, 0.5),
        (32, 32, 0.25),
    ],
)
def test_products_of_one_dsp_slice(weight_bits, activation_bits, products):
    assert products_per_dsp(weight_bits, activation_bits) == products


def test_an_engine_by_hand():
    # Two rows of four 24-LUT products, trees of 8 bits x 7 sums, accumulators of 6 + 8 - 1 + 1 bits, rounded up.
    assert accumulator_bits(LAYER) == 15
    assert engine_luts(LAYER, 2, 4) == int(300 + 1.1 * 2 * (4 * 24 + 8 * 7 + 15))
    assert engine_luts(LAYER, 2, 4, "dsp") == int(300 + 1.1 * 2 * (8 * 7 + 15))
    thresholds = replace(LAYER, output_bits=2)
    assert engine_luts(thresholds, 2, 4) == int(300 + 1.1 * 2 * (4 * 24 + 8 * 7 + 15 + 2 * 3 * 15))
    assert engine_dsps(LAYER, 2, 4) == 4
    assert engine_dsps(LAYER, 8, 4) == 8
    assert engine_dsps(LAYER, 8, 4, packed=False) == 32
    assert engine_cycles(LAYER, 2, 4) == 32 * 16


def test_weights_are_stored_in_luts_of_depth_64_and_in_the_best_block_ram_configuration():
    assert weight_memory_luts(LAYER, 8) == 8 * 4 * (512 // 64)
    assert weight_memory_brams(LAYER, 8) == 1  # 512 deep, 32 wide
    assert weight_memory_brams(LAYER, 16) == 2  # 256 deep, 64 wide
    big = FpgaLayer("big", 256, 2304, 1, 8, 8)
    assert weight_memory_brams(big, 1) == 288  # equal for 1024 x 18, 2048 x 9 and 16384 x 1


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 16), st.integers(1, 16))
def test_memories_hold_all_weights(log_pe, log_simd, weight_bits, activation_bits):
    layer = FpgaLayer("l", 64, 64, 1, weight_bits, activation_bits)
    products = 2 ** (log_pe + log_simd)
    bits = layer.mh * layer.mw * weight_bits
    assert weight_memory_luts(layer, products) * 64 >= bits
    assert weight_memory_brams(layer, products) * 18 * 1024 >= bits


# The layers of CNV with one-bit weights on CIFAR-10, and the folding that FINN ships for it: (rows, columns,
# output pixels, PE, SIMD). Its published figures: 3,000 frames per second at 100 MHz; 1.51 ms for one frame
# (MLPerf Tiny v0.7).
CNV = [
    (64, 27, 900, 16, 3),
    (64, 576, 784, 32, 32),
    (128, 576, 144, 16, 32),
    (128, 1152, 100, 16, 32),
    (256, 1152, 9, 4, 32),
    (256, 2304, 1, 1, 32),
    (512, 256, 1, 1, 4),
    (512, 512, 1, 1, 8),
    (10, 512, 1, 5, 1),
]


def test_cycles_of_a_published_design():
    cycles = [
        engine_cycles(FpgaLayer("l", mh, mw, pixels, 1, 1), pe, simd) for mh, mw, pixels, pe, simd in CNV
    ]
    assert 100e6 / max(cycles) == pytest.approx(3000, rel=0.03)
    assert max(cycles) / 100e6 < 1.51e-3 < sum(cycles) / 100e6


@pytest.mark.parametrize(
    ("call", "argument", "error"),
    [
        (lambda: FpgaLayer("c1", 0, 1, 1, 8, 8), "layer c1: mh", EvaluationError),
        (lambda: FpgaLayer("c1", 1, 1, 1, 8.5, 8), "layer c1: weight_bits", EvaluationError),
        (lambda: replace(LAYER, output_bits=0), "layer fc: output_bits", EvaluationError),
        (lambda: engine_luts(LAYER, 3, 1), "pe: 3 does not divide mh=64 of layer fc", EvaluationError),
        (lambda: engine_cycles(LAYER, 1, 5), "simd: 5 does not divide mw=64", EvaluationError),
        (lambda: engine_dsps(LAYER, 0, 1), "pe", EvaluationError),
        (lambda: weight_memory_brams(LAYER, 0), "products", EvaluationError),
        (lambda: multiplier_luts(0, 1), "weight_bits", EvaluationError),
        (lambda: FpgaDevice(-1, 1, 1, 1e8), "luts", ConfigError),
        (lambda: FpgaDevice(1, 1, 1, 0), "clock_hz", ConfigError),
        (lambda: FpgaDevice(1, 1, 1, 1e8, lut_fraction=1.1), "lut_fraction", ConfigError),
    ],
)
def test_errors_name_the_argument(call, argument, error):
    with pytest.raises(error, match=argument):
        call()
