from dataclasses import replace

import numpy as np
import pytest

from evaluators.base import Measurement
from evaluators.cost.cost import CostEvaluator
from evaluators.cost.summary import SummaryEvaluator
from evaluators.devices.device import Device
from evaluators.metric import MeanMetric
from evaluators.testing import EvaluatorConformance, tiny_context, tiny_model
from spaces.stages.array_split import ArraySplit

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


class _Perplexity(MeanMetric):
    name, direction = "perplexity", "minimize"


def text_context(*measured, value=4.0, drop=1.0):
    ids = np.ones((2, 6), np.int64)
    scores = (
        Measurement("perplexity", value, "", "measured"),
        Measurement("perplexity_drop", drop, "", "measured"),
    )
    plain = replace(tiny_context(), split=ArraySplit(ids, ids), metric=_Perplexity())
    return replace(plain, devices={"board": BOARD}, measured=(*scores, *measured))


def test_where_less_is_better_the_reciprocal_counts():
    model = tiny_model()
    metrics = {m.name: m.value for m in SummaryEvaluator().evaluate(model, text_context()).measurements}
    assert metrics == {"compression_rate": pytest.approx(3 / 4)}
    same = SummaryEvaluator().evaluate(model, text_context(drop=0.0)).measurements
    assert [m.value for m in same] == [1.0]
    nothing = SummaryEvaluator().evaluate(model, text_context(value=0.0))
    assert nothing.measurements == ()


def test_of_a_written_token_intelligence_is_per_joule_of_it():
    written = (
        Measurement("tokens_per_s", 20.0, "1/s", "measured", "board"),
        Measurement("joules_per_token", 0.5, "J", "measured", "board"),
    )
    found = SummaryEvaluator().evaluate(tiny_model(), text_context(*written)).measurements
    metrics = {m.name: m.value for m in found}
    assert metrics["intelligence_per_joule"] == pytest.approx(0.25 / 0.5)
    assert metrics["intelligence_per_watt"] == pytest.approx(0.25 / (0.5 * 20))


def test_a_trained_candidate_has_throughputs_per_parameter():
    model = replace(tiny_model(), notes={"recover": {"examples": 30, "seconds": 2.0}})
    n_parameters = 4 * 3 * 9 + 4 * 5 + 5
    found = {m.name: m.value for m in SummaryEvaluator().evaluate(model, text_context()).measurements}
    assert found["sample_throughput"] == pytest.approx(15 / n_parameters)
    assert found["token_throughput"] == pytest.approx(15 * 6 / n_parameters)
    of_images = {m.name for m in SummaryEvaluator().evaluate(model, context()).measurements}
    assert "sample_throughput" in of_images
    assert "token_throughput" not in of_images
    assert SummaryEvaluator().possible(context()) == {"metric.sample_throughput", "metric.token_throughput"}


def test_without_a_latency_there_is_nothing_per_device():
    metrics = SummaryEvaluator().evaluate(tiny_model(), context()).measurements
    assert [m.name for m in metrics] == ["compression_rate"]


def test_without_measurements_the_reason_is_reported():
    evaluation = SummaryEvaluator().evaluate(tiny_model(), tiny_context())
    assert evaluation.measurements == ()
    assert "name evaluator.summary last" in evaluation.details["summary"]["absent_because"]
