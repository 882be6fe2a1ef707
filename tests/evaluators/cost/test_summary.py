from dataclasses import replace

import pytest

from evaluators.base import Measurement
from evaluators.cost.cost import CostEvaluator
from evaluators.cost.summary import SummaryEvaluator
from evaluators.devices.device import Device
from evaluators.testing import EvaluatorConformance, tiny_context, tiny_model

BOARD = Device(
    "board", runtime="r", macs_per_s={"float32": {"default": 1e6}}, active_power_mw=40.0, ram_bytes=4096
)


def context(*measured):
    plain = tiny_context()
    name = plain.metric.name
    score = (Measurement(name, 80.0, "%", "measured"), Measurement(f"{name}_drop", 20.0, "%", "measured"))
    return replace(plain, devices={"board": BOARD}, measured=(*score, *measured))


class TestConformance(EvaluatorConformance):
    def make_evaluator(self):
        return SummaryEvaluator()

    def make_context(self):
        return context()


def test_metrics_follow_from_what_was_measured():
    model, plain = tiny_model(), context()
    costs = CostEvaluator().evaluate(model, plain).measurements
    by_name = {m.name: m.value for m in costs}
    metrics = {m.name: m for m in SummaryEvaluator().evaluate(model, context(*costs)).measurements}
    # the reference is this very file: nothing is smaller, and 80 of 100 points are kept
    assert metrics["compression_rate"].value == pytest.approx(0.8)
    assert metrics["samples_per_s"].value == pytest.approx(1e3 / by_name["latency_ms"])
    assert metrics["intelligence_per_joule"].value == pytest.approx(0.8 / (by_name["energy_uj"] * 1e-6))
    assert metrics["intelligence_per_watt"].value == pytest.approx(0.8 / 0.040)
    assert metrics["compute_utilisation"].value == pytest.approx(100)  # all its time is multiply-accumulates
    live = 4 * (3 * 64 + 4 * 64)
    assert 0 < metrics["memory_utilisation"].value <= 100 * live / 4096
    assert {m.source for name, m in metrics.items() if name != "compression_rate"} == {"modelled"}


def test_without_a_latency_there_is_nothing_per_device():
    metrics = SummaryEvaluator().evaluate(tiny_model(), context()).measurements
    assert [m.name for m in metrics] == ["compression_rate"]


def test_without_measurements_the_reason_is_reported():
    evaluation = SummaryEvaluator().evaluate(tiny_model(), tiny_context())
    assert evaluation.measurements == ()
    assert "name evaluator.summary last" in evaluation.details["summary"]["absent_because"]
