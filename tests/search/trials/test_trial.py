import pickle
from contextlib import contextmanager
from dataclasses import replace

import pytest

from evaluators.base import EarlyStoppingThreshold, Evaluation, Evaluator, Measurement
from evaluators.cost.cost import CostEvaluator
from evaluators.cost.energy.power import PowerEvaluator
from evaluators.cost.latency.measured import LatencyEvaluator
from evaluators.devices.device import Device
from evaluators.task.accuracy import AccuracyEvaluator
from evaluators.testing import tiny_context, tiny_model
from search.trials.machine_lock import Hold, MachineLock
from search.trials.trial import TIMED_BESIDE, CompressionRunner, TrialRequest
from spaces.candidate import Candidate
from spaces.knob_spec import KnobSpec
from spaces.space_config import read_space
from spaces.stages.artifact import Artifact
from spaces.stages.cache import Cache
from spaces.stages.pipeline import Pipeline
from spaces.stages.stage import Stage, StageContext


class Rounding(Stage):
    """Builds the tiny model with `bits` bits; `shift` changes a value in the file but not its structure."""

    name = "rounding"
    consumes = ("onnx",)
    produces = "onnx"
    knobs = (
        KnobSpec("bits", 8, "weight bits", allowed=(4, 8)),
        KnobSpec("shift", 0.0, "added to the bias", low=-9.0, high=9.0),
    )

    def __init__(self):
        self.applied = []

    def apply(self, artifact, values, context):
        from onnx import numpy_helper

        self.applied.append(dict(values))
        model = tiny_model(values["bits"]).proto()
        for stored in model.graph.initializer:
            if stored.name == "dense_bias":
                bias = numpy_helper.to_array(stored).copy()
                bias[0] += values["shift"]
                stored.CopyFrom(numpy_helper.from_array(bias, stored.name))
        return Artifact.onnx(model, artifact.input)

    def structure(self, artifact, values, context):
        return {"bits": values["bits"]}


class Counted(CostEvaluator):
    def __init__(self):
        self.calls = 0

    def evaluate(self, artifact, context):
        self.calls += 1
        return super().evaluate(artifact, context)


class Timed(Evaluator):
    name = "timed"
    exclusive = True

    def evaluate(self, artifact, context):
        assert any(m.name == "top1" for m in context.measured)
        return Evaluation((Measurement("latency_ms", 1.0, "ms", "measured", "host"),))


def runner(tmp_path, evaluators, n=64, folder=None):
    stage = Rounding()
    space = read_space({"rounding": {"bits": [4, 8], "shift": [0.0, 1.0, 9.0]}}, [stage])
    start = tiny_model()
    return CompressionRunner(
        space, start, Pipeline([stage]), StageContext(None, Cache(folder)), tiny_context(start, n), evaluators,
        MachineLock(tmp_path),
    )  # fmt: skip


def candidate(bits, shift=0.0):
    return Candidate({"rounding.bits": bits, "rounding.shift": shift})


def columns(result):
    return {m.column for m in result.measurements}


def test_structure_keys_depend_on_the_structure_alone(tmp_path):
    r = runner(tmp_path, [])
    assert r.keys(candidate(8, 0.0))[1] == r.keys(candidate(8, 1.0))[1]
    assert r.keys(candidate(8))[1] != r.keys(candidate(4))[1]
    assert r.key(candidate(8, 0.0)) != r.key(candidate(8, 1.0))


def test_costs_are_computed_once_per_structure(tmp_path):
    cost = Counted()
    r = runner(tmp_path, [AccuracyEvaluator(), cost])
    results = [
        r.run(TrialRequest(i, candidate(b, s))) for i, (b, s) in enumerate([(8, 0.0), (8, 1.0), (4, 1.0)])
    ]
    assert [x.outcome for x in results] == ["measured"] * 3
    assert cost.calls == 2
    costs = [[m for m in x.measurements if m.device == "board"] for x in results]
    assert costs[0] == costs[1] != costs[2]
    assert costs[1]
    alone = CostEvaluator().evaluate(r.build(candidate(8, 1.0)), r.context).measurements
    assert [m for m in alone if m.device == "board"] == costs[1]
    assert results[1].details["cost"] == results[0].details["cost"]


def test_costs_are_computed_for_every_file_where_a_device_removes_dead_channels(tmp_path):
    cost = Counted()
    r = runner(tmp_path, [cost])
    board = Device("board", runtime="some", macs_per_s={"float32": {"default": 1e9}, "int8": {"default": 4e9}},
                   memory_bandwidth_bytes_per_s=1e9, removes_dead_channels=True)  # fmt: skip
    r = replace(r, context=replace(r.context, devices={"board": board}))
    for shift in (0.0, 1.0):
        r.run(TrialRequest(0, candidate(8, shift)))
    assert cost.calls == 2


def test_structural_measurements_without_a_trial(tmp_path):
    cost = Counted()
    r = runner(tmp_path, [AccuracyEvaluator(), cost])
    known = r.structural(candidate(8, 0.0))
    assert known == r.structural(candidate(8, 9.0))
    assert cost.calls == 1
    assert len(r.pipeline.stages[0].applied) == 1
    result = r.run(TrialRequest(0, candidate(8, 1.0)))
    assert set(known) <= set(result.measurements)
    assert cost.calls == 1


def test_a_candidate_below_its_threshold_is_pruned_with_its_costs_and_without_a_timing(tmp_path):
    evaluators = [AccuracyEvaluator(batch_size=4), CostEvaluator(), Timed()]
    r = runner(tmp_path, evaluators, n=200)
    result = r.run(
        TrialRequest(
            0,
            candidate(4, 9.0),
            threshold=EarlyStoppingThreshold(99.0, "trial 3 reaches it"),
        )
    )
    assert result.outcome == "pruned"
    assert result.reason.startswith("top1 is below 99 %")
    assert result.reason.endswith("of 200 images; trial 3 reaches it")
    assert "metric.top1_partial" in columns(result)
    assert "metric.top1" not in columns(result)
    assert "cost.board.weight_bytes" in columns(result)
    assert "cost.host.latency_ms" not in columns(result)
    assert result.model is None
    assert result.artifact_digest == r.build(candidate(4, 9.0)).digest
    full = r.run(TrialRequest(1, candidate(4, 9.0)))
    assert full.outcome == "measured"
    assert {"metric.top1", "cost.host.latency_ms"} <= columns(full)


def test_timed_evaluators_hold_the_lock_exclusively(tmp_path, monkeypatch):
    held, held_during = [], {}

    class Watched(MachineLock):
        @contextmanager
        def shared(self):
            with super().shared() as hold:
                held.append("shared")
                yield hold
                held.remove("shared")

        @contextmanager
        def exclusive(self):
            with super().exclusive() as hold:
                held.append("exclusive")
                yield hold
                held.remove("exclusive")

    for kind in (AccuracyEvaluator, CostEvaluator, LatencyEvaluator, PowerEvaluator):

        def noted(self, artifact, context, evaluate=kind.evaluate):
            held_during[self.name] = list(held)
            return evaluate(self, artifact, context)

        monkeypatch.setattr(kind, "evaluate", noted)
    power = PowerEvaluator(seconds=0.01, root=str(tmp_path))
    r = runner(tmp_path, [LatencyEvaluator(max_seconds=0.01), AccuracyEvaluator(), power, CostEvaluator()])
    result = replace(r, lock=Watched(tmp_path)).run(TrialRequest(0, candidate(8)))
    assert "cost.host.latency_ms" in columns(result)
    assert held_during == {
        "accuracy": ["shared"], "cost": ["shared"], "latency": ["exclusive"], "power": ["exclusive"],
    }  # fmt: skip


class NeverExclusive(MachineLock):
    def exclusive(self):
        pytest.fail("nothing is timed")


def test_a_study_that_times_nothing_on_this_machine_never_asks_for_it(tmp_path):
    """The default evaluators time only where a device of the study is this machine."""
    r = runner(tmp_path, [AccuracyEvaluator(), CostEvaluator(), LatencyEvaluator(), PowerEvaluator()])
    devices = {name: device for name, device in r.context.devices.items() if not device.measured}
    assert devices
    r = replace(r, lock=NeverExclusive(tmp_path), context=replace(r.context, devices=devices))
    assert r.run(TrialRequest(0, candidate(8))).outcome == "measured"
    measurements, _ = r.measure(r.dense, r.context)
    assert "metric.top1" in {m.column for m in measurements}


def test_waiting_for_the_machine_is_a_step_and_does_not_count_towards_the_time_limit(tmp_path):
    class Slow(MachineLock):
        @contextmanager
        def shared(self):
            yield Hold(1000.0)

    r = replace(runner(tmp_path, [AccuracyEvaluator()]), lock=Slow(tmp_path))
    result = r.run(TrialRequest(0, candidate(8), time_limit_s=100.0))
    assert result.outcome == "measured"
    assert result.seconds["waiting"] == 1000.0


def test_a_timing_beside_other_computations_is_noted(tmp_path):
    class Busy(MachineLock):
        @contextmanager
        def exclusive(self):
            yield Hold(60.0, ("another study's computation, pid 7 (study a)",))

    r = replace(runner(tmp_path, [AccuracyEvaluator(), Timed()]), lock=Busy(tmp_path))
    result = r.run(TrialRequest(0, candidate(8)))
    assert result.details[TIMED_BESIDE] == ["another study's computation, pid 7 (study a)"]
    alone = runner(tmp_path, [AccuracyEvaluator(), Timed()]).run(TrialRequest(0, candidate(8)))
    assert TIMED_BESIDE not in alone.details


def test_seconds_add_up_to_the_wall_time(tmp_path):
    r = runner(tmp_path, [AccuracyEvaluator(batch_size=4), CostEvaluator(), Timed()], n=400)
    result = r.run(TrialRequest(0, candidate(4)))
    assert {"rounding", "accuracy", "cost", "timed"} <= set(result.seconds)
    assert sum(result.seconds.values()) == pytest.approx(result.wall_s, rel=0.2)
    assert sum(result.seconds.values()) <= result.wall_s


def test_a_second_study_takes_artifacts_from_the_cache(tmp_path):
    first = runner(tmp_path, [], folder=tmp_path / "stages")
    second = runner(tmp_path, [], folder=tmp_path / "stages")
    built = first.build(candidate(4, 1.0))
    assert second.build(candidate(4, 1.0)).onnx_bytes == built.onnx_bytes
    assert second.pipeline.stages[0].applied == []


def test_a_runner_survives_pickling(tmp_path):
    r = pickle.loads(pickle.dumps(runner(tmp_path, [AccuracyEvaluator(), CostEvaluator()])))
    assert r.run(TrialRequest(0, candidate(8))).outcome == "measured"


def test_layers_are_explained_on_demand_only(tmp_path):
    r = runner(tmp_path, [AccuracyEvaluator(sqnr_images=4), CostEvaluator()])
    result = r.run(TrialRequest(0, candidate(8)))
    assert "layers" not in result.details
    assert [layer["layer"] for layer in r.explain(result.model)["layers"]] == ["kernel", "dense_weight"]
