import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.base import Measurement
from search.record.objectives import read_objectives
from search.record.results import Constraint
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
    _, (constraint,) = read_objectives(rule, "top1", ["board"], columns, {column: float(n_bytes)})
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
