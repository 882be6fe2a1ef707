import os
from dataclasses import replace

import numpy as np
import pytest

from evaluators.base import Evaluator
from evaluators.cost.latency import measured as latency
from evaluators.cost.latency import turns
from evaluators.cost.latency.measured import LatencyEvaluator, pinned, take_turns
from evaluators.testing import EvaluatorConformance, RandomSplit, model_from_text, tiny_context, tiny_model
from spaces.errors import ConfigError, EvaluationError
from spaces.models.weight_formats import KEY
from spaces.quantization.formats.onnx_weights import encode_layers, with_packed_weights
from spaces.quantization.formats.shift_add import ShiftAdd
from spaces.stages.artifact import Artifact


class TestConformance(EvaluatorConformance):
    def make_evaluator(self) -> Evaluator:
        return LatencyEvaluator(rounds=2, max_seconds=0.01)


class Clock:
    """A fake clock that advances only while a task runs."""

    def __init__(self, monkeypatch):
        self.now_ns = 0
        self.runs = []
        monkeypatch.setattr(turns, "perf_counter_ns", lambda: self.now_ns)

    def task(self, name, ms):
        def run():
            self.runs.append(name)
            self.now_ns += int(ms() * 1e6) if callable(ms) else int(ms * 1e6)

        return run

    def blocks(self):
        """Names in the order of the timed blocks, after the warm-up."""
        timed = self.runs[2 * latency._WARM_UP_RUNS :]
        return [name for i, name in enumerate(timed) if i == 0 or timed[i - 1] != name]


def test_medians_of_known_durations(monkeypatch):
    clock = Clock(monkeypatch)
    timings = take_turns(clock.task("a", 2.0), clock.task("b", 0.5), rounds=4, max_seconds=0.4)
    assert np.median(timings.first_ms) == pytest.approx(2.0)
    assert np.median(timings.second_ms) == pytest.approx(0.5)
    assert len(timings.second_ms) == 4 * len(timings.first_ms)  # each model gets half the time


def test_models_alternate_in_both_orders(monkeypatch):
    clock = Clock(monkeypatch)
    take_turns(clock.task("a", 2.0), clock.task("b", 1.0), rounds=4, max_seconds=0.1)
    assert "".join(clock.blocks()) == "ababa"  # ab ba ab ba, with adjacent equal blocks merged


def test_linear_drift_cancels(monkeypatch):
    clock = Clock(monkeypatch)
    same = lambda: 1.0 + clock.now_ns * 1e-9  # noqa: E731 (a machine that slows down steadily)
    timings = take_turns(clock.task("a", same), clock.task("b", same), rounds=8, max_seconds=0.5)
    assert np.mean(timings.first_ms) == pytest.approx(np.mean(timings.second_ms), rel=0.01)


def test_slow_models_keep_the_time_limit_down_to_two_rounds(monkeypatch):
    clock = Clock(monkeypatch)
    timings = take_turns(clock.task("a", 100.0), clock.task("b", 50.0), rounds=8, max_seconds=0.5)
    assert timings.rounds == 3
    assert len(timings.first_ms) == 3
    assert take_turns(clock.task("a", 5000.0), clock.task("b", 1.0), 8, 0.5).rounds == 2


def test_timings_of_a_real_model():
    evaluation = LatencyEvaluator(max_seconds=0.05).evaluate(tiny_model(), tiny_context())
    values = {m.column: m.value for m in evaluation.measurements}
    assert values["cost.host.latency_ms"] > 0
    assert values["cost.host.latency_iqr_ms"] >= 0
    speedup = values["cost.host.latency_float_ms"] / values["cost.host.latency_ms"]
    assert values["cost.host.speedup"] == pytest.approx(speedup)
    assert {m.source for m in evaluation.measurements} == {"measured"}
    assert evaluation.details["latency"]["threads"] == 1


def test_simulated_weights_are_not_timed():
    model = tiny_model()
    packed = encode_layers(model.proto(), {"kernel": ShiftAdd()})
    simulated = Artifact.onnx(with_packed_weights(model.proto(), packed), model.input)
    evaluation = LatencyEvaluator(max_seconds=0.05).evaluate(simulated, tiny_context())
    assert evaluation.measurements == ()
    assert (
        "computes kernel in standard operators, which simulates weight_format=shift_add"
        in evaluation.details["because"]["cost.host.latency_ms"]
    )


def test_weights_that_were_trained_to_fit_a_format_are_not_timed_either():
    proto = tiny_model().proto()
    proto.metadata_props.add(key=KEY, value='{"kernel": "ternary"}')
    evaluation = LatencyEvaluator(max_seconds=0.05).evaluate(
        Artifact.onnx(proto, tiny_model().input), tiny_context()
    )
    assert evaluation.measurements == ()
    assert "simulates weight_format=ternary" in evaluation.details["because"]["cost.host.latency_ms"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot pin threads")
def test_pinning_is_recorded_and_undone():
    before = os.sched_getaffinity(0)
    with pinned(1) as cores:
        assert os.sched_getaffinity(0) == set(cores) == {max(before)}
    assert os.sched_getaffinity(0) == before
    with pytest.raises(ValueError, match="on purpose"), pinned(1):
        raise ValueError("on purpose")
    assert os.sched_getaffinity(0) == before
    with pinned(0) as cores:
        assert cores is None
    with pinned(10_000) as cores:
        assert cores is None
    details = LatencyEvaluator(max_seconds=0.01).evaluate(tiny_model(), tiny_context()).details["latency"]
    assert details["cores"] == [max(before)]


def test_nothing_is_timed_for_other_devices():
    context = tiny_context()
    elsewhere = replace(context, devices={"board": context.devices["board"]})
    assert LatencyEvaluator().evaluate(tiny_model(), elsewhere).measurements == ()


def test_a_fixed_batch_is_timed_as_a_whole():
    evaluation = LatencyEvaluator(max_seconds=0.01).evaluate(tiny_model(batch=4), tiny_context())
    assert evaluation.measurements[0].value > 0
    with pytest.raises(EvaluationError, match="too few examples"):
        LatencyEvaluator().evaluate(tiny_model(batch=64), replace(tiny_context(), split=RandomSplit(8)))


def test_a_model_that_does_not_run_raises():
    other = model_from_text("g (float[n,7] input) => (float[n,7] output) { output = Relu(input) }", {})
    with pytest.raises(EvaluationError, match="cannot run the model"):
        LatencyEvaluator().evaluate(other, tiny_context())


@pytest.mark.parametrize("arguments", [{"rounds": 1}, {"threads": 0}, {"max_seconds": 0}])
def test_arguments_out_of_range_raise(arguments):
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        LatencyEvaluator(**arguments)
