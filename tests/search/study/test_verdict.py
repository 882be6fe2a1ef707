import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.base import Measurement
from evaluators.cost.cost import CostEvaluator
from evaluators.devices.device import Device
from evaluators.testing import tiny_context, tiny_model
from search.planning.plan_compression import format_constraints
from search.record.objectives import Measured, read_objectives
from search.record.results import Constraint, Objective
from search.study.verdict import verdict
from search.trials.trial import TrialResult
from spaces.candidate import Candidate


def judged(value, constraint):
    """The record of a trial that measures `value` in the constraint's column."""
    measured = Measurement("drop", value, "pp", "measured")
    result = TrialResult(0, Candidate({}), "measured", measurements=(measured,))
    return verdict(result, 0, (), (constraint,))


def drop(kind, limit, margin=0.0):
    return Constraint("c", "metric.drop", kind, limit, margin)


@given(st.integers(1, 9_999), st.integers(1, 9_999), st.sampled_from(["max", "min"]))
def test_a_drop_that_equals_its_limit_meets_it(hundredths, of_drop, kind):
    """Accuracies with two decimals: their difference is the limit, but for what rounding makes of it."""
    baseline, limit = (hundredths + of_drop) / 100, of_drop / 100
    assert judged(baseline - hundredths / 100, drop(kind, limit)).state == "complete"


@given(st.integers(1, 10_000), st.integers(1, 99), st.sampled_from(["max", "min"]))
def test_a_value_that_equals_its_limit_with_margin_meets_it(hundredths, percent, kind):
    limit, toward = hundredths / 100, -1 if kind == "max" else 1
    constraint = drop(kind, limit, margin=limit * percent / 100)
    assert judged(hundredths * (100 + toward * percent) / 10_000, constraint).state == "complete"


@given(st.integers(1, 80_000_000), st.integers(0, 99))
def test_a_size_that_equals_what_the_device_leaves_fits_and_one_byte_more_does_not(hundreds, percent):
    n_bytes = 100 * hundreds
    column = "cost.board.flash_bytes"
    rule = {"maximize": ["top1"], "constraints": {"flash_bytes": {"max": "device", "margin": f"{percent} %"}}}
    columns = {"metric.top1", column}
    _, (constraint,) = read_objectives(rule, Measured("top1", ["board"], columns, {column: float(n_bytes)}))
    largest = hundreds * (100 - percent)
    assert constraint.excess(largest) <= 0
    assert constraint.excess(largest + 1) > 0


@pytest.mark.parametrize(("kind", "value"), [("max", 1 + 1e-9), ("min", 1 - 1e-9)])
def test_more_than_rounding_beside_the_limit_is_infeasible(kind, value):
    record = judged(value, drop(kind, 1.0))
    assert record.state == "infeasible"
    assert record.reason.startswith("c: drop is 1, 1e-09")


def test_a_limit_of_zero_is_exact():
    assert judged(0.0, drop("max", 0.0)).state == "complete"
    assert judged(1e-12, drop("max", 0.0)).state == "infeasible"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_meets_nothing(value):
    assert judged(value, drop("max", 1.0)).state == "failed"
    assert not drop("max", 1.0).excess(value) <= 0


AXES = (Objective("metric.top1", "maximize"), Objective("cost.board.size", "minimize"))
LIMITS = (
    Constraint("accurate", "metric.top1", "min", 90.0),
    Constraint("small", "cost.board.size", "max", 10.0, margin=1.0),
)


def result(top1=95.0, size=5.0, outcome="measured", **more):
    measured = (
        Measurement("top1", top1, "%", "measured"),
        Measurement("size", size, "", "modelled", "board"),
    )
    return TrialResult(7, Candidate({"x": 1}), outcome, measurements=measured, **more)


def test_everything_that_was_returned_is_kept():
    found = verdict(
        result(details={"why": 1}, seconds={"build": 2.0}, wall_s=3.0, artifact_digest="abc"), 4, AXES, LIMITS
    )
    assert (found.number, found.state, found.reason) == (4, "complete", "")
    assert found.candidate == Candidate({"x": 1})
    assert found.values() == {"metric.top1": 95.0, "cost.board.size": 5.0}
    assert (found.details, found.seconds, found.wall_s) == ({"why": 1}, {"build": 2.0}, 3.0)
    assert found.artifact_digest == "abc"


@pytest.mark.parametrize("outcome", ["failed", "pruned"])
def test_what_was_not_measured_to_the_end_keeps_its_own_reason(outcome):
    found = verdict(result(top1=math.nan, size=99.0, outcome=outcome, reason="told"), 0, AXES, LIMITS)
    assert (found.state, found.reason) == (outcome, "told")


def test_a_limit_itself_is_allowed_and_what_is_beyond_is_told():
    assert verdict(result(top1=90.0, size=9.0), 0, AXES, LIMITS).state == "complete"
    found = verdict(result(top1=89.5, size=9.25), 0, AXES, LIMITS)
    assert found.state == "infeasible"
    assert found.reason == (
        "accurate: top1 is 89.5, 0.5 below the limit of 90; "
        "small: board.size is 9.25, 0.25 above the limit of 10 with its margin of 1"
    )


def test_what_decided_a_value_is_told_with_it():
    because = {"because": {"cost.board.size": "a table of it", "metric.top1": "no label"}}
    found = verdict(result(size=12.0, details=because), 0, AXES, LIMITS)
    assert found.reason.endswith("with its margin of 1 (a table of it)")
    found = verdict(result(top1=math.inf, details=because), 0, AXES, LIMITS)
    assert found.state == "failed"
    assert found.reason == "metric.top1 is inf, but the study needs it: no label"


def test_what_a_constraint_needs_must_be_measured_too():
    fast = Constraint("fast", "cost.board.latency_ms", "max", 1.0)
    found = verdict(result(), 0, AXES, [fast])
    assert (found.state, found.reason) == (
        "failed", "cost.board.latency_ms is absent, but the study needs it",
    )  # fmt: skip


def test_a_4_bit_file_is_infeasible_on_a_runtime_without_4_bits():
    """Although its latency there, an objective, is absent."""
    device = Device(
        "board",
        "",
        "X-CUBE-AI 7.3",
        {"int8": {"default": 1e8}, "float32": {"default": 1e7}},
        weight_formats=("float32", "int8"),
    )
    context = replace(tiny_context(), devices={"board": device})
    objectives = (Objective("cost.board.latency_ms", "minimize"),)
    constraints = format_constraints(
        {"board": device}, CostEvaluator().evaluate(tiny_model(), context).measurements
    )
    records = []
    for bits in (8, 4):
        found = CostEvaluator().evaluate(tiny_model(bits), context)
        result = TrialResult(
            0, Candidate({}), "measured", measurements=found.measurements, details=found.details
        )
        records.append(verdict(result, 0, objectives, constraints))
    assert [r.state for r in records] == ["complete", "infeasible"]
    assert records[1].reason.startswith(
        "formats.board: board.unsupported_layers is 1, 1 above the limit of 0 (X-CUBE-AI 7.3 takes float32, int8 weights, but"
    )


def test_a_trial_without_an_objective_that_breaks_nothing_failed():
    result = TrialResult(0, Candidate({}), "measured", details={"because": {"metric.top1": "it was not run"}})
    record = verdict(result, 0, (Objective("metric.top1", "maximize"),), ())
    assert record.state == "failed"
    assert record.reason == "metric.top1 is absent, but the study needs it: it was not run"
