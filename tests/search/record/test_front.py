import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from evaluators.base import Measurement
from search.record.front import feasible_baseline, losses, pareto_front, possible_front
from search.record.results import BASELINE, Constraint, Objective, TrialRecord, baseline_record
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


HOST = (Objective("metric.top1", "maximize"), Objective("cost.host.latency_ms", "minimize"))


def timed(
    number, top1, latency_ms, *, low=None, high=None, iqr=0.0, of_float=1.0, again=False, state="complete"
):
    known = {
        "latency_ms": latency_ms,
        "latency_ms_low": low or latency_ms,
        "latency_ms_high": high or latency_ms,
        "latency_iqr_ms": iqr,
        "latency_float_ms": of_float,
    }
    measured = (
        Measurement("top1", top1, "%", "measured"),
        *(Measurement(name, value, "ms", "measured", "host") for name, value in known.items()),
    )
    details = {"timed_ms": [latency_ms] * 8} if again else {}
    return TrialRecord(number, state, "", Candidate({"n": number}), measured, details)


def test_a_timing_at_a_bad_moment_does_not_end_a_candidate():
    """The int8 defaults of an early report: 0.096 ms with an interquartile range of 0.18 ms, in truth 0.018."""
    defaults = timed(0, 98.7, 0.096, low=0.09, high=0.11, iqr=0.18)
    other = timed(1, 98.7, 0.0599, low=0.059, high=0.061)
    assert pareto_front([defaults, other], HOST) == (1,)
    assert possible_front([defaults, other], HOST) == (0, 1)


def test_a_moment_that_was_bad_for_the_float_model_too_is_scaled_away():
    slow = timed(0, 98.0, 2.0, of_float=4.0)
    quick = timed(1, 98.0, 1.0, of_float=1.0)
    assert possible_front([slow, quick], HOST) == (0, 1)
    assert possible_front([timed(0, 98.0, 2.0), quick], HOST) == (1,)


def test_what_was_timed_again_has_its_interval_and_the_tie():
    sure = timed(0, 98.0, 1.0, again=True)
    assert possible_front([sure, timed(1, 98.0, 1.05, again=True, of_float=9.0, iqr=1.0)], HOST) == (0, 1)
    assert possible_front([sure, timed(1, 98.0, 1.1, again=True, of_float=9.0, iqr=1.0)], HOST) == (0,)
    assert possible_front([sure, timed(1, 98.0, 1.1, low=0.9, again=True)], HOST) == (0, 1)


def test_a_limit_that_one_timing_broke_may_hold():
    limit = Constraint("fast", "cost.host.latency_ms", "max", 1.0)
    late = timed(0, 99.0, 1.5, iqr=0.8, state="infeasible")
    assert possible_front([late, timed(1, 98.0, 0.5)], HOST, [limit]) == (0, 1)
    assert possible_front([timed(0, 99.0, 1.5, state="infeasible"), timed(1, 98.0, 0.5)], HOST, [limit]) == (
        1,
    )
    assert possible_front([late, timed(1, 98.0, 0.5)], HOST[:1], [limit]) == (0, 1)
    poor = Constraint("good", "metric.top1", "min", 99.5)
    assert possible_front([late, timed(1, 99.6, 0.5)], HOST, [limit, poor]) == (1,)


@given(points)
def test_without_timings_the_possible_front_is_the_front(pairs):
    records = [record(i, float(a), float(b)) for i, (a, b) in enumerate(pairs)]
    assert possible_front(records, AXES) == pareto_front(records, AXES)


@given(points)
def test_the_possible_front_has_the_front(pairs):
    records = [timed(i, float(a), float(b + 1)) for i, (a, b) in enumerate(pairs)]
    assert set(pareto_front(records, HOST)) <= set(possible_front(records, HOST))


def test_the_float_model_is_a_candidate_if_it_meets_every_limit():
    dense = baseline_record(timed(0, 99.0, 1.0).measurements)
    assert feasible_baseline(dense, HOST, []) is dense
    assert pareto_front([dense, timed(0, 98.0, 1.0), timed(1, 97.0, 0.5)], HOST) == (BASELINE, 1)
    assert feasible_baseline(dense, HOST, [Constraint("c", "cost.host.latency_ms", "max", 0.5)]) is None
    assert feasible_baseline(dense, HOST, [Constraint("c", "cost.mcu.flash", "max", 0.5)]) is None
    assert feasible_baseline(dense, AXES, []) is None  # it has no latency on the board
    assert feasible_baseline(dense, HOST, [Constraint("c", "metric.top1_drop_high", "max", 0.5)]) is dense
