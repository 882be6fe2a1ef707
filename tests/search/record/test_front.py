import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.base import Measurement
from search.record.front import losses, overall_best, pareto_front, picks
from search.record.results import Constraint, DevicePick, Objective, TrialRecord
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


def test_losses_are_to_be_minimised_and_need_every_objective():
    assert losses(record(0, 90.5, 5.25), AXES).tolist() == [-90.5, 5.25]
    assert losses(record(0, math.nan, 5.0), AXES) is None
    assert losses(record(0, 90.0, math.inf), AXES) is None
    assert losses(record(0, 90.0, 5.0), (*AXES, Objective("metric.loss", "minimize"))) is None


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


@pytest.mark.parametrize(
    ("name", "before", "in_turns", "lower"),
    [
        ("latency_ms", 100.0, 7.0, False),
        ("latency_ms", 7.0, 9.0, True),
        ("size", 10.0, 1.0, True),
        ("size", 7.0, 100.0, False),
    ],
)
def test_a_timed_pick_is_compared_with_the_float_model_timed_in_turns_with_it(name, before, in_turns, lower):
    column, top1 = f"cost.board.{name}", record(0, 90.0, 99.0).measurements[0]
    cost = Measurement(name, 7.0, "", "measured", "board")
    turns = Measurement("latency_float_ms", in_turns, "ms", "measured", "board")
    trial = TrialRecord(0, "complete", "", Candidate({"n": 0}), (top1, cost, turns))
    axes = (AXES[0], Objective(column, "minimize"))
    (pick,) = picks([trial], axes, [], ["board"], {column: before})
    assert (pick.caveat == "") == lower


def test_without_a_limit_the_pick_cannot_be_told_from_the_best():
    def uncertain(number, top1, latency_ms):
        return record(number, top1, latency_ms, top1_drop=91 - top1, top1_drop_high=91 - top1 + 0.6)

    records = [
        uncertain(0, 90.0, 5.0),
        uncertain(1, 89.6, 3.0),
        uncertain(2, 89.2, 2.0),
        uncertain(3, 85.0, 1.0),
    ]
    (pick,) = picks(records, AXES, [], ["board"], {})
    assert pick.number == 1
    assert pick.why == (
        "lowest latency_ms among the models whose top1 is within noise of the best one's (within 0.60)"
    )


@pytest.mark.parametrize("known", [{}, {"top1_drop": 1.0}, {"top1_drop_high": 1.6}])
def test_without_an_interval_only_the_best_is_good_enough(known):
    records = [record(0, 90.0, 5.0, **known), record(1, 89.9, 3.0, **known)]
    assert picks(records, AXES, [], ["board"], {})[0].number == 0


def test_no_pick_without_a_cost_or_a_model():
    assert picks([record(0, 90.0, 5.0)], AXES, [], ["other"], {}) == ()
    assert picks([], AXES, [], ["board"], {}) == ()
    faster = (AXES[0], Objective("cost.board.latency_ms", "maximize"))
    assert picks([record(0, 90.0, 5.0)], faster, [], ["board"], {}) == ()


def test_best_of_a_single_objective_and_of_nothing():
    records = [record(0, 90.0, 5.0), record(1, 91.0, 6.0)]
    assert overall_best(records, AXES[:1], [], [])[0] == 1
    assert overall_best([], AXES, [], []) == (None, "no trial met the constraints")


def test_with_devices_it_is_the_first_ones_pick():
    found = [DevicePick("board", 1, "lowest latency_ms"), DevicePick("chip", 0, "lowest size")]
    records = [record(0, 90.0, 5.0), record(1, 89.0, 2.0)]
    assert overall_best(records, AXES, [], found) == (1, "the pick for board: lowest latency_ms")


def test_of_a_single_objective_to_minimise_it_is_the_lowest():
    records = [record(0, 90.0, 5.0), record(1, 91.0, 4.0), record(2, 92.0, 6.0)]
    assert overall_best(records, AXES[1:], [], []) == (1, "the best cost.board.latency_ms")


def test_a_second_objective_to_maximise_goes_to_the_highest():
    axes = (AXES[0], Objective("metric.recall", "maximize"))
    limit = Constraint("c", "metric.top1", "min", 80.0)
    records = [record(n, 90.0 - n, 1.0, recall=recall) for n, recall in enumerate((60.0, 70.0, 65.0))]
    number, why = overall_best(records, axes, [limit], [])
    assert (number, why) == (1, "highest metric.recall among the models that meet every constraint")


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
