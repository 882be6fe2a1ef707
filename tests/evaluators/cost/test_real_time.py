from dataclasses import replace

import pytest

from evaluators.base import Measurement
from evaluators.cost.real_time import RealTimeEvaluator
from evaluators.testing import EvaluatorConformance, tiny_context, tiny_model
from spaces.errors import ConfigError

KNOWN = (
    Measurement("top1", 90.0, "%", "measured"),
    Measurement("latency_ms", 12.0, "ms", "modelled", "board"),
    Measurement("latency_ms", 3.0, "ms", "measured", "host"),
)


class TestConformance(EvaluatorConformance):
    def make_evaluator(self):
        return RealTimeEvaluator(0.5)

    def make_context(self):
        return replace(tiny_context(), measured=KNOWN)


def test_latencies_are_divided_by_the_duration():
    context = replace(tiny_context(), measured=KNOWN)
    found = {m.column: m for m in RealTimeEvaluator(0.5).evaluate(tiny_model(), context).measurements}
    assert {column: m.value for column, m in found.items()} == pytest.approx(
        {
            "cost.board.latency_per_second": 24.0,
            "cost.board.real_time_factor": 0.024,
            "cost.host.latency_per_second": 6.0,
            "cost.host.real_time_factor": 0.006,
        }
    )
    assert found["cost.board.latency_per_second"].source == "modelled"


def test_without_a_latency_the_reason_is_reported():
    evaluation = RealTimeEvaluator(1.0).evaluate(tiny_model(), tiny_context())
    assert evaluation.measurements == ()
    assert "name evaluator.real_time last" in evaluation.details["real_time"]["absent_because"]


@pytest.mark.parametrize("seconds", [0, -1.0])
def test_wrong_durations_raise(seconds):
    with pytest.raises(ConfigError, match=r"evaluator\.real_time\.seconds"):
        RealTimeEvaluator(seconds)
