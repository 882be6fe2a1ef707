import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.base import Measurement
from search.record.front import overall_best, pareto_front, picks
from search.record.results import Constraint, Objective, TrialRecord
from spaces.candidate import Candidate

AXES = (Objective("metric.top1", "maximize"), Objective("cost.board.latency_ms", "minimize"))


def record(number, top1, latency_ms, state="complete", **metrics):
    measured = [
        Measurement("top1", top1, "%", "measured"),
        Measurement("latency_ms", latency_ms, "ms", "modelled", "board"),
    ]
    measured += [Measurement(name, value, "", "measured") for name, value in metrics.items()]
    return TrialRecord(number, state, "", Candidate({"n": number}), tuple(measured))


points = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12)


@given(points)
def test_nothing_on_the_front_is_dominated_and_all_else_is(pairs):
    records = [record(i, float(a), float(b)) for i, (a, b) in enumerate(pairs)]
    front = [pairs[n] for n in pareto_front(records, AXES)]
    assert len(set(front)) == len(front)
    for a, b in itertools.product(front, repeat=2):
        assert not (a != b and a[0] >= b[0] and a[1] <= b[1])
    for pair in pairs:
        assert any(best[0] >= pair[0] and best[1] <= pair[1] for best in front)
    assert [-a for a, _ in front] == sorted(-a for a, _ in front)


def test_only_feasible_and_finite_trials_count():
    records = [
        record(0, 99, 1, state="infeasible"),
        record(1, float("nan"), 1),
        record(2, 50, 5),
        record(3, 50, 5),
    ]
    assert pareto_front(records, AXES) == (2,)


def test_the_pick_is_the_fastest_that_meets_the_limit_on_the_drop():
    records = [record(0, 90.0, 5.0), record(1, 89.0, 2.0)]
    limit = Constraint("drop", "metric.top1_drop", "max", 2.0)
    (pick,) = picks(records, AXES, [limit], ["board", "other"], {})
    assert (pick.device, pick.number, pick.caveat) == ("board", 1, "")
    assert picks(records, AXES, [limit], ["board"], {"cost.board.latency_ms": 4.0})[0].caveat == ""
    assert (
        "lower latency_ms"
        in picks(records, AXES, [limit], ["board"], {"cost.board.latency_ms": 2.0})[0].caveat
    )
    assert overall_best(records, AXES, [limit], [pick])[0] == 1


@pytest.mark.parametrize(("latency_ms", "chosen"), [(10.2, 0), (10.29, 0), (10.31, 1), (11.0, 1)])
def test_costs_within_three_per_cent_are_a_tie_and_no_more(latency_ms, chosen):
    """The better model is taken where it costs as much as the cheapest one; 3 % is what timing is uncertain by."""
    records = [record(0, 90.0, latency_ms), record(1, 89.0, 10.0)]
    limit = Constraint("drop", "metric.top1_drop", "max", 2.0)
    (pick,) = picks(records, AXES, [limit], ["board"], {})
    assert pick.number == chosen


@pytest.mark.parametrize(("before", "lower"), [(10.2, False), (10.25, False), (10.4, True), (11.0, True)])
def test_the_caveat_knows_the_same_tie(before, lower):
    (pick,) = picks([record(0, 90.0, 10.0)], AXES, [], ["board"], {"cost.board.latency_ms": before})
    assert (pick.caveat == "") == lower


def test_without_a_limit_the_pick_cannot_be_told_from_the_best():
    def uncertain(number, top1, latency_ms):
        return record(number, top1, latency_ms, top1_drop=91 - top1, top1_drop_high=91 - top1 + 0.6)

    records = [uncertain(0, 90.0, 5.0), uncertain(1, 89.6, 3.0), uncertain(2, 85.0, 1.0)]
    (pick,) = picks(records, AXES, [], ["board"], {})
    assert pick.number == 1
    assert "is within noise of the best" in pick.why


def test_best_of_a_single_objective_and_of_nothing():
    records = [record(0, 90.0, 5.0), record(1, 91.0, 6.0)]
    assert overall_best(records, AXES[:1], [], [])[0] == 1
    assert overall_best([], AXES, [], []) == (None, "no trial met the constraints")


def test_without_devices_a_tie_in_size_goes_to_the_better_model():
    axes = (AXES[0], Objective("metric.file_bytes", "minimize"))
    limit = Constraint("drop", "metric.top1_drop", "max", 5.0)
    records = [record(0, 82.5, 1, file_bytes=3_619_289.0), record(1, 81.5, 1, file_bytes=3_619_280.0)]
    number, why = overall_best(records, axes, [limit], [])
    assert number == 0
    assert "lowest metric.file_bytes" in why


def test_a_device_whose_name_begins_like_another_one_is_told_apart():
    axes = (AXES[0], Objective("cost.board.v2.latency_ms", "minimize"))
    slow = Measurement("latency_ms", 5.0, "ms", "modelled", "board.v2")
    records = [
        TrialRecord(0, "complete", "", Candidate({"n": 0}), (*record(0, 90.0, 1.0).measurements, slow))
    ]
    (pick,) = picks(records, axes, (), ["board", "board.v2"], {})
    assert pick.device == "board.v2"
    assert pick.why.startswith("lowest latency_ms among")
