import pytest

from evaluators.cost.cost import CostEvaluator
from evaluators.devices.device import Device
from evaluators.testing import tiny_context, tiny_model
from search.planning.modelled_latency import ModelledLatency
from spaces.errors import StageError

DEVICES = tiny_context().devices


def test_the_latency_is_the_cost_evaluators():
    context = tiny_context()
    found = {m.column: m.value for m in CostEvaluator().evaluate(tiny_model(), context).measurements}
    assert ModelledLatency(DEVICES)(tiny_model(), "board") == found["cost.board.latency_ms"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("boord", "Did you mean 'board'"), ("host", "timed, not modelled; modelled in this study: board")],
)
def test_a_device_without_a_model_is_refused(name, message):
    with pytest.raises(StageError, match=message):
        ModelledLatency(DEVICES)(tiny_model(), name)


def test_a_device_that_cannot_run_floats_is_refused():
    only_int8 = Device(
        "chip", runtime="some", macs_per_s={"int8": {"default": 1e9}}, memory_bandwidth_bytes_per_s=1e9
    )
    with pytest.raises(StageError, match="chip has no throughput for float32"):
        ModelledLatency({"chip": only_int8})(tiny_model(), "chip")


def test_the_digest_is_that_of_the_profiles():
    slower = Device(
        "board", runtime="some", macs_per_s={"float32": {"default": 1e8}}, memory_bandwidth_bytes_per_s=1e9
    )
    assert ModelledLatency(DEVICES).digest == ModelledLatency(dict(reversed(DEVICES.items()))).digest
    assert ModelledLatency(DEVICES).digest != ModelledLatency({**DEVICES, "board": slower}).digest
