from dataclasses import replace

import pytest

from evaluators.base import Evaluator
from evaluators.cost.cost import CostEvaluator
from evaluators.devices import Device
from evaluators.testing import EvaluatorConformance, tiny_context, tiny_model


class TestConformance(EvaluatorConformance):
    def make_evaluator(self) -> Evaluator:
        return CostEvaluator()


def columns(devices, artifact):
    context = replace(tiny_context(), devices={d.name: d for d in devices})
    evaluation = CostEvaluator().evaluate(artifact, context)
    return {m.column: m.value for m in evaluation.measurements}, evaluation.details["cost"]


def test_each_device_has_its_own_costs_and_all_share_one_analysis():
    slow = Device("slow", runtime="r", macs_per_s={"float32": 1e6})
    fast = Device("fast", runtime="r", macs_per_s={"float32": 1e9})
    values, details = columns([slow, fast], tiny_model())
    # Conv: 4 x 8 x 8 outputs of 27 MACs; Gemm: 5 outputs of 4.
    macs = 4 * 64 * 27 + 5 * 4
    assert details["macs"] == macs
    assert values["cost.slow.latency_ms"] == pytest.approx(macs / 1e6 * 1e3)
    assert values["cost.fast.latency_ms"] == pytest.approx(macs / 1e9 * 1e3)
    assert values["cost.slow.weight_bytes"] == values["cost.fast.weight_bytes"] == 4 * (4 * 27 + 4 * 5 + 5)
    assert values["cost.slow.peak_activation_bytes"] == 4 * (3 * 64 + 4 * 64)


def test_latency_that_is_timed_is_not_modelled():
    values, details = columns([Device("host", runtime="r", measured=True)], tiny_model())
    assert set(values) == {"cost.host.peak_activation_bytes", "cost.host.weight_bytes"}
    assert details["latency"] == {}


def test_latency_without_figures_is_absent_and_says_why():
    npu = Device("npu", runtime="r", macs_per_s={"int8": 1e9})
    values, details = columns([npu], tiny_model(weight_bits=8))
    assert "cost.npu.latency_ms" not in values
    assert details["latency"]["npu"]["absent_because"] == (
        "npu has no throughput for float32 (1 kernels); its profile lists int8"
    )


def test_every_source_is_modelled():
    found = CostEvaluator().evaluate(tiny_model(), tiny_context()).measurements
    assert {m.source for m in found} == {"modelled"}
