from dataclasses import replace

import pytest

from evaluators.base import Evaluator
from evaluators.cost.cost import CostEvaluator
from evaluators.devices.device import Deployment, Device
from evaluators.devices.fpga import FpgaDevice
from evaluators.testing import EvaluatorConformance, tiny_context, tiny_model


class TestConformance(EvaluatorConformance):
    def make_evaluator(self) -> Evaluator:
        return CostEvaluator()


def evaluated(devices, artifact):
    context = replace(tiny_context(), devices={d.name: d for d in devices})
    return CostEvaluator().evaluate(artifact, context)


def columns(devices, artifact):
    evaluation = evaluated(devices, artifact)
    return {m.column: m.value for m in evaluation.measurements}, evaluation.details["cost"]


def test_each_device_has_its_own_costs_and_all_share_one_analysis():
    slow = Device("slow", runtime="r", macs_per_s={"float32": {"default": 1e6}})
    fast = Device("fast", runtime="r", macs_per_s={"float32": {"default": 1e9}})
    values, details = columns([slow, fast], tiny_model())
    # Conv: 4 x 8 x 8 outputs of 27 MACs; Gemm: 5 outputs of 4.
    macs = 4 * 64 * 27 + 5 * 4
    assert details["macs"] == macs
    assert values["cost.slow.latency_ms"] == pytest.approx(macs / 1e6 * 1e3)
    assert values["cost.fast.latency_ms"] == pytest.approx(macs / 1e9 * 1e3)
    assert values["cost.slow.weight_bytes"] == values["cost.fast.weight_bytes"] == 4 * (4 * 27 + 4 * 5 + 5)
    assert values["cost.slow.peak_activation_bytes"] == 4 * (3 * 64 + 4 * 64)
    assert values["cost.slow.total_bytes"] == 4 * (4 * 27 + 4 * 5 + 5) + 4 * (3 * 64 + 4 * 64)


def test_latency_that_is_timed_is_not_modelled():
    values, details = columns([Device("host", runtime="r", measured=True)], tiny_model())
    assert set(values) == {f"cost.host.{name}_bytes" for name in ("peak_activation", "weight", "total")}
    assert details["latency"] == {}


def test_latency_without_figures_is_absent_with_a_reason():
    npu = Device("npu", runtime="r", macs_per_s={"int8": {"default": 1e9}})
    values, details = columns([npu], tiny_model(weight_bits=8))
    assert "cost.npu.latency_ms" not in values
    assert details["latency"]["npu"]["absent_because"] == (
        "npu has no throughput for float32 (1 kernels); its profile lists int8"
    )
    because = evaluated([npu], tiny_model(weight_bits=8)).details["because"]
    assert because["cost.npu.latency_ms"] == details["latency"]["npu"]["absent_because"]


def test_columns_that_only_compressed_models_can_have_are_possible():
    npu = Device("npu", runtime="r", macs_per_s={"int8": {"default": 1e9}}, active_power_mw=10.0)
    context = replace(
        tiny_context(), devices={"npu": npu, "host": Device("host", runtime="r", measured=True)}
    )
    assert CostEvaluator().possible(context) == {"cost.npu.latency_ms", "cost.npu.energy_uj"}


def test_energy_and_error_bars_come_from_the_profile():
    board = Device(
        "board",
        runtime="r",
        macs_per_s={"float32": {"default": 1e6}},
        active_power_mw=40.0,
        error={"latency_ms": 0.25},
    )
    values, _ = columns([board], tiny_model())
    latency_ms = values["cost.board.latency_ms"]
    assert values["cost.board.energy_uj"] == pytest.approx(40 * latency_ms)
    # modelled = measured x (1 +- 0.25)
    assert values["cost.board.latency_ms_low"] == pytest.approx(latency_ms / 1.25)
    assert values["cost.board.latency_ms_high"] == pytest.approx(latency_ms / 0.75)
    assert "cost.board.energy_uj_low" not in values


def test_memory_follows_the_deployment_and_the_peak_layer_is_reported():
    alone = Device("alone", runtime="r", macs_per_s={"float32": {"default": 1e6}})
    shared = replace(alone, name="shared", deployment=Deployment(weights="ram", overhead_bytes=1000))
    evaluation = evaluated([alone, shared], tiny_model())
    values = {m.column: m.value for m in evaluation.measurements}
    activations, weights = 4 * (3 * 64 + 4 * 64), 4 * (4 * 27 + 4 * 5 + 5)
    assert values["cost.alone.peak_sram_bytes"] == activations
    assert values["cost.alone.flash_bytes"] == weights
    assert values["cost.shared.peak_sram_bytes"] == activations + weights + 1000
    assert "cost.shared.flash_bytes" not in values
    assert "the peak is at layer" in evaluation.details["because"]["cost.alone.peak_sram_bytes"]


def test_a_float_model_on_an_fpga_has_no_costs_and_a_reason():
    fpga = Device("fpga", runtime="r", fabric=FpgaDevice(luts=70_000, dsps=360, brams=432, clock_hz=1e8))
    values, details = columns([fpga], tiny_model())
    assert "cost.fpga.luts" not in values
    assert "engines are for integers" in details["latency"]["fpga"]["absent_because"]


def test_every_source_is_modelled():
    measurements = CostEvaluator().evaluate(tiny_model(), tiny_context()).measurements
    assert {m.source for m in measurements} == {"modelled"}
