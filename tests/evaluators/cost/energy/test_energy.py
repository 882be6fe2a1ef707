from dataclasses import replace

import pytest

from evaluators.cost.energy import energy_uj, op_energy_uj
from evaluators.cost.energy.operations import DRAM_PJ_PER_BIT, mac_pj, sram_pj_per_bit
from evaluators.cost.graph import Kernel, OpGraph
from evaluators.devices.device import Device, OpEnergy

CONV = Kernel(
    "k", "Conv", "conv", "int8", 1000, 50, ("a",), ("b",), 100, 200, weight_bits=8, activation_bits=8
)
CHIP = OpEnergy(scale=1.0, on_chip_bytes=65536)


def graph(*kernels):
    return OpGraph(kernels, ("a",), ("b",), {"a": 100, "b": 200}, 50, {})


def test_with_a_known_power_energy_is_power_times_latency():
    board = Device("board", active_power_mw=40.0)
    assert energy_uj(graph(CONV), board, 2.5) == pytest.approx(100.0)
    assert energy_uj(graph(CONV), board, None) is None


def test_without_a_power_energies_of_operations_and_accesses_add_up():
    compute = 1000 * mac_pj(8, 8)
    on_chip = 8 * 350 * sram_pj_per_bit(65536)
    assert op_energy_uj([CONV], CHIP) == pytest.approx((compute + on_chip) * 1e-6)
    assert op_energy_uj([CONV, CONV], replace(CHIP, scale=0.5)) == pytest.approx((compute + on_chip) * 1e-6)


def test_weights_from_dram_cost_more():
    outside = op_energy_uj([CONV], replace(CHIP, weights_from="dram"))
    difference = 8 * 50 * (DRAM_PJ_PER_BIT - sram_pj_per_bit(65536)) * 1e-6
    assert outside - op_energy_uj([CONV], CHIP) == pytest.approx(difference)


def test_fewer_bits_cost_less_and_floats_most():
    by_bits = [
        op_energy_uj([replace(CONV, weight_bits=bits, weight_bytes=50 * bits // 8)], CHIP)
        for bits in (2, 4, 8)
    ]
    as_float = replace(CONV, dtype="float32", weight_bits=32, activation_bits=32)
    assert by_bits == sorted(by_bits)
    assert by_bits[-1] < op_energy_uj([as_float], CHIP)


def test_a_profile_without_figures_has_no_energy():
    assert energy_uj(graph(CONV), Device("board"), 2.5) is None
    assert energy_uj(graph(CONV), Device("chip", op_energy=CHIP), None) == op_energy_uj([CONV], CHIP)
