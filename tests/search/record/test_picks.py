import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.base import Measurement
from search.record.picks import overall_best, picks
from search.record.results import BASELINE, Constraint, DevicePick, Objective, TrialRecord, baseline_record
from spaces.candidate import Candidate
from tests.search.record.test_front import AXES, record


def test_the_pick_is_the_fastest_that_meets_the_limit_on_the_drop():
    records = [record(0, 90.0, 5.0), record(1, 89.0, 2.0)]
    limit = Constraint("drop", "metric.top1_drop", "max", 2.0)
    (pick,) = picks(records, AXES, [limit], ["board", "other"], {})
    assert (pick.device, pick.number, pick.caveat) == ("board", 1, "")
    assert picks(records, AXES, [limit], ["board"], {"cost.board.latency_ms": 4.0})[0].caveat == ""
    assert (
        "latency is no lower"
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


def test_a_pick_that_is_worse_than_float_says_so_and_why_float_is_none():
    (pick,) = picks([record(0, 90.0, 30.0)], AXES, [], ["board"], {"cost.board.latency_ms": 10.0}, ["flash"])
    assert pick.caveat == "Its latency is 3 times that of the float model, which breaks flash."


def dense(top1, latency_ms):
    return baseline_record(record(0, top1, latency_ms).measurements)


LIMIT = Constraint("drop", "metric.top1_drop", "max", 2.0)


@pytest.mark.parametrize(
    ("latency_ms", "chosen", "why"),
    [
        (9.0, BASELINE, "lowest latency among the models that meet every constraint"),
        (
            10.2,
            BASELINE,
            "within 3 % of the fastest (trial 0) among the models that meet every constraint, with a better top1",
        ),
        (10.5, 0, "lowest latency among the models that meet every constraint"),
    ],
)
def test_the_float_model_may_be_the_pick(latency_ms, chosen, why):
    models = [dense(91.0, latency_ms), record(0, 90.0, 10.0)]
    (pick,) = picks(models, AXES, [LIMIT], ["board"], {"cost.board.latency_ms": latency_ms})
    assert (pick.number, pick.why, pick.caveat) == (chosen, why, "")


def test_of_equally_good_models_in_a_tie_the_smaller_file_is_taken():
    records = [
        record(n, 90.0, 10.0 + n / 10, file_bytes=size) for n, size in enumerate((300.0, 200.0, 250.0))
    ]
    (pick,) = picks(records, AXES, [LIMIT], ["board"], {})
    assert (pick.number, pick.rivals) == (1, ())
    assert pick.why.endswith("in a smaller file")


def rounds(number, top1, *ms):
    measured = (
        Measurement("top1", top1, "%", "measured"),
        Measurement("latency_ms", sorted(ms)[len(ms) // 2], "ms", "measured", "host"),
    )
    return TrialRecord(number, "complete", "", Candidate({"n": number}), measured, {"timed_ms": list(ms)})


HOST = (AXES[0], Objective("cost.host.latency_ms", "minimize"))


def test_models_that_the_timings_leave_on_either_side_of_the_tie_are_rivals():
    steady = rounds(0, 89.0, *[10.0] * 9)
    beside = rounds(1, 90.0, *[10.0, 10.6] * 4, 10.2)
    (pick,) = picks([steady, beside], HOST, [LIMIT], ["host"], {})
    assert (pick.number, pick.rivals) == (1, (0,))
    (pick,) = picks([steady, rounds(1, 90.0, *[10.0, 10.6] * 4, 10.5)], HOST, [LIMIT], ["host"], {})
    assert (pick.number, pick.rivals) == (0, (1,))
    (pick,) = picks([steady, rounds(1, 90.0, *[10.6] * 9)], HOST, [LIMIT], ["host"], {})
    assert (pick.number, pick.rivals) == (0, ())


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 40)), min_size=1, max_size=8), st.integers(0, 100)
)
def test_no_pick_costs_more_than_three_per_cent_above_the_cheapest(pairs, seed):
    records = [record(n, float(a), float(b)) for n, (a, b) in enumerate(pairs)]
    (pick,) = picks(records, AXES, [LIMIT], ["board"], {})
    chosen = records[pick.number].values()
    assert chosen["cost.board.latency_ms"] <= 1.03 * min(b for _, b in pairs)
    shuffled = random.Random(seed).sample(records, len(records))
    assert picks(shuffled, AXES, [LIMIT], ["board"], {}) == (pick,)


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
        "lowest latency among the models whose top1 is within noise of the best one's (within 0.60)"
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
    assert pick.why.startswith("lowest latency among")
