import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.cost.energy.operations import (
    DRAM_PJ_PER_BIT,
    add_pj,
    kernel_energy_pj,
    mac_pj,
    multiply_pj,
    shift_add_product_pj,
    sram_pj_per_bit,
)
from spaces.errors import EvaluationError

WIDTHS = st.integers(1, 64)


@pytest.mark.parametrize(("bits", "pj"), [(4, 0.052), (8, 0.200), (16, 0.783), (32, 3.1)])
def test_products_reproduce_the_published_table(bits, pj):
    assert multiply_pj(bits) == pytest.approx(pj, abs=6e-4) == multiply_pj(bits, bits)


@pytest.mark.parametrize(("bits", "pj"), [(8, 0.03), (16, 0.05), (32, 0.1)])
def test_sums_lie_near_horowitz(bits, pj):
    assert add_pj(bits) == pytest.approx(pj, rel=0.17)  # one line cannot pass through all three


@pytest.mark.parametrize(("log2_bits", "pj"), [(16, 10 / 64), (18, 20 / 64), (23, 100 / 64)])
def test_memory_accesses_reproduce_horowitz(log2_bits, pj):
    assert sram_pj_per_bit(2**log2_bits / 8) == pytest.approx(pj, rel=5e-3)
    assert DRAM_PJ_PER_BIT == 20.3125


@given(st.floats(1, 2**30), st.floats(1, 2**30))
def test_larger_memories_never_cost_less(first, second):
    small, large = sorted((first, second))
    assert 0 < sram_pj_per_bit(small) <= sram_pj_per_bit(large)


@given(WIDTHS, WIDTHS, WIDTHS)
def test_wider_products_cost_more_whichever_factor_is_wide(first, second, third):
    assert multiply_pj(first, second) == pytest.approx(multiply_pj(second, first))
    narrow, wide = sorted((second, third))
    assert multiply_pj(first, narrow) <= multiply_pj(first, wide)


def test_a_shift_add_product_is_k_shifts_and_k_minus_1_sums():
    assert shift_add_product_pj(1, 8, 4) == pytest.approx(0.025)
    assert shift_add_product_pj(3, 8, 4) == pytest.approx(3 * 0.025 + 2 * 12 * 0.003125)
    assert mac_pj(4, 8, 32, shift_terms=1) == pytest.approx(0.025 + 0.1)


def test_one_power_of_two_beats_the_product_it_replaces():
    assert mac_pj(8, 8, shift_terms=1) < mac_pj(8, 8) < mac_pj(8, 8, float_dtype="float16")


def test_float_products_are_summed_in_the_accumulator():
    assert mac_pj(32, 32, float_dtype="float32") == pytest.approx(3.7 + 0.9)
    assert mac_pj(16, 16, 16, "float16") == pytest.approx(1.1 + 0.4)
    assert mac_pj(16, 16, 32, "float16") == pytest.approx(1.1 + 0.9)
    assert mac_pj(16, 16, 16, "float16", shift_terms=2) == pytest.approx(2 * 0.15 + 0.4 + 0.4)


def test_a_kernel_pays_for_arithmetic_and_for_every_byte():
    energy = kernel_energy_pj(1000, 8, 8, 32, on_chip_bytes=10, on_chip_memory_bytes=32 * 1024, dram_bytes=3)
    assert energy.compute_pj == pytest.approx(1000 * (multiply_pj(8) + 0.1))
    assert energy.on_chip_pj == pytest.approx(80 * sram_pj_per_bit(32 * 1024))
    assert energy.dram_pj == pytest.approx(24 * 20.3125)
    assert energy.total_pj == pytest.approx(energy.compute_pj + energy.on_chip_pj + energy.dram_pj)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: kernel_energy_pj(-1), "n_macs"),
        (lambda: kernel_energy_pj(1, weight_bits=0), "weight_bits"),
        (lambda: kernel_energy_pj(1, activation_bits=float("nan")), "activation_bits"),
        (lambda: kernel_energy_pj(1, accumulator_bits=0), "accumulator_bits"),
        (lambda: kernel_energy_pj(1, float_dtype="bfloat"), "float_dtype"),
        (lambda: kernel_energy_pj(1, shift_terms=0), "terms"),
        (lambda: kernel_energy_pj(1, float_dtype="float16", shift_terms=1.5), "shift_terms"),
        (lambda: kernel_energy_pj(1, on_chip_bytes=1), "on_chip_memory_bytes"),
        (lambda: kernel_energy_pj(1, dram_bytes=-1), "dram_bytes"),
        (lambda: sram_pj_per_bit(0), "memory_bytes"),
        (lambda: add_pj("8"), "bits"),
    ],
)
def test_errors_name_the_argument(call, argument):
    with pytest.raises(EvaluationError, match=argument):
        call()
