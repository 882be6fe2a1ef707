import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.base import Measurement
from search.record.hypervolume import Volume, hypervolume
from search.record.results import Constraint, Objective, TrialRecord
from spaces.candidate import Candidate

AXES = (Objective("metric.top1", "maximize"), Objective("cost.board.latency_ms", "minimize"))
BASELINE = {"metric.top1": 90.0, "cost.board.latency_ms": 10.0}


def record(number, top1, latency_ms, **latencies_ms):
    costs = {"board": latency_ms, **latencies_ms}
    return TrialRecord(
        number,
        "complete",
        "",
        Candidate({"n": number}),
        (
            Measurement("top1", top1, "%", "measured"),
            *(Measurement("latency_ms", value, "ms", "modelled", device) for device, value in costs.items()),
        ),
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda d: st.lists(st.lists(st.integers(0, 4), min_size=d, max_size=d), min_size=1, max_size=7)
    )
)
def test_hypervolume_counts_the_dominated_cells(rows):
    """On a grid of whole numbers the volume is the number of unit cells that some point dominates."""
    grid = np.array(rows, dtype=float)
    reference = np.full(grid.shape[1], 4.0)
    cells = itertools.product(range(4), repeat=grid.shape[1])
    counted = sum(any(all(p <= c for p, c in zip(row, cell, strict=True)) for row in rows) for cell in cells)
    assert hypervolume(grid, reference) == pytest.approx(counted)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 4).flatmap(
        lambda d: st.tuples(
            st.lists(st.lists(st.integers(0, 3), min_size=d, max_size=d), min_size=1, max_size=7),
            st.lists(st.integers(3, 5), min_size=d, max_size=d),
        )
    )
)
def test_the_reference_may_be_nearer_on_one_axis_than_on_another(case):
    rows, reference = case
    cells = itertools.product(*map(range, reference))
    counted = sum(any(all(p <= c for p, c in zip(row, cell, strict=True)) for row in rows) for cell in cells)
    found = hypervolume(np.array(rows, dtype=float), np.array(reference, dtype=float))
    assert found == pytest.approx(counted)


@pytest.mark.parametrize("outside", [[0.0, 5.0], [5.0, 0.0], [0.0, 4.0], [4.0, 0.0], [5.0, 5.0]])
def test_a_point_outside_the_reference_in_any_axis_counts_for_nothing(outside):
    reference = np.array([4.0, 4.0])
    assert hypervolume(np.array([outside]), reference) == 0.0
    assert hypervolume(np.array([[1.0, 2.0], outside]), reference) == pytest.approx(6.0)
    deeper = np.array([[1.0, 2.0, 3.0], [*outside, 0.0], [0.0, *outside]])
    assert hypervolume(deeper, np.array([4.0, 4.0, 4.0])) == pytest.approx(6.0)


def test_volume_is_scaled_by_the_baseline():
    limit = Constraint("drop", "metric.top1_drop", "max", 2.0)
    volume = Volume(AXES, [limit], {"metric.top1": 90.0, "cost.board.latency_ms": 10.0})
    assert volume.defined
    # as good as float at half its latency: half of the unit square
    assert volume.of([record(0, 90.0, 5.0)]) == pytest.approx(0.5)
    assert volume.of([record(0, 89.0, 5.0)]) == pytest.approx(0.25)
    assert volume.of([record(0, 88.0, 5.0)]) == 0.0
    assert volume.of([record(0, 90.0, 11.0)]) == 0.0
    assert not Volume(AXES[:1], [], {"metric.top1": 90.0}).defined
    assert not Volume(AXES, [], {"metric.top1": 90.0}).defined


def test_a_metric_that_is_better_when_lower_is_no_cost():
    axes = (Objective("metric.top1", "minimize"), AXES[1])
    limit = Constraint("drop", "metric.top1_drop", "max", 2.0)
    baseline = {"metric.top1": 10.0, "metric.top1_drop": 0.0, "cost.board.latency_ms": 10.0}
    volume = Volume(axes, [limit], baseline)
    assert volume.of([record(0, 10.0, 5.0)]) == pytest.approx(0.5)
    assert volume.of([record(0, 11.0, 5.0)]) == pytest.approx(0.25)
    assert volume.of([record(0, 12.0, 5.0)]) == 0.0
    assert Volume(axes, [], baseline).of([record(0, 10.5, 5.0)]) == pytest.approx(0.25)


def test_with_several_devices_it_is_the_mean_of_what_each_sees():
    axes = (*AXES, Objective("cost.chip.latency_ms", "minimize"))
    volume = Volume(axes, [], {**BASELINE, "cost.chip.latency_ms": 4.0})
    assert volume.of([record(0, 90.0, 5.0, chip=1.0)]) == pytest.approx((0.5 + 0.75) / 2)
    many = (AXES[0], *(Objective(f"cost.d{i}.latency_ms", "minimize") for i in range(25)))
    volume = Volume(many, [], {"metric.top1": 90.0, **{o.column: 10.0 for o in many[1:]}})
    front = [record(n, 90.0 - n, 1.0, **{f"d{i}": 9.0 - n for i in range(25)}) for n in range(8)]
    assert 0 < volume.of(front) < 1


def test_an_axis_that_the_baseline_lacks_is_left_out():
    axes = (*AXES, Objective("cost.npu.latency_ms", "minimize"))
    volume = Volume(axes, [], BASELINE)
    assert volume.of([record(0, 90.0, 5.0, npu=1.0)]) == pytest.approx(0.5)
    assert volume.of([record(0, 90.0, 5.0)]) == 0.0  # without every objective a trial counts for nothing


@pytest.mark.parametrize(
    ("constraints", "worst"),
    [
        ([], 0.9 * 90.0),
        ([Constraint("c", "metric.top1_drop", "max", 2.0)], 88.0),
        ([Constraint("c", "metric.top1_drop", "max", 2.0, margin=0.5)], 88.5),
        ([Constraint("c", "metric.top1", "min", 80.0)], 80.0),
        ([Constraint("c", "metric.top1", "min", 80.0, margin=4.0)], 84.0),
        # those say nothing of how low it may be
        (
            [Constraint("c", "metric.top1", "max", 80.0), Constraint("d", "metric.top1_drop", "min", 5.0)],
            81.0,
        ),
        ([Constraint("c", "metric.other", "min", 80.0), Constraint("d", "metric.a_drop", "max", 5.0)], 81.0),
        ([Constraint("c", "metric.zeta", "max", 80.0), Constraint("d", "metric.zeta", "min", 5.0)], 81.0),
    ],
)
def test_the_reference_is_the_worst_that_is_allowed_or_nine_tenths(constraints, worst):
    volume = Volume(AXES, constraints, BASELINE)
    for share in (0.25, 0.5, 1.0):
        assert volume.of([record(0, worst + share * (90.0 - worst), 5.0)]) == pytest.approx(0.5 * share)


def test_any_baseline_above_zero_is_one_to_win_over():
    cheap = {"metric.top1": 0.5, "cost.board.latency_ms": 1e-3}
    assert Volume(AXES, [], cheap).of([record(0, 0.5, 0.5e-3)]) == pytest.approx(0.5)
    for nothing in ({"metric.top1": 0.0}, {"cost.board.latency_ms": 0.0}):
        assert not Volume(AXES, [], BASELINE | nothing).defined
