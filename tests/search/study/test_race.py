from dataclasses import replace

import numpy as np
import pytest

from evaluators.base import Measurement
from search.record.results import BASELINE, Objective, TrialRecord
from search.study.race import FIRST_ROUNDS, MOST_ROUNDS, race, undecided, without_load
from spaces.candidate import Candidate

AXES = (Objective("metric.top1", "maximize"), Objective("cost.host.latency_ms", "minimize"))


def timed(ms):
    return Measurement("latency_ms", ms, "ms", "measured", "host")


def record(number, top1):
    measured = (Measurement("top1", top1, "%", "measured"), timed(1.0))
    return TrialRecord(number, "complete", "", Candidate({"n": number}), measured)


class Machine:
    """Times models of known latency on a machine whose load changes between rounds, with outliers."""

    def __init__(self, true_ms, seed=0, noise=0.01, outliers=0.1):
        self.true_ms, self.rng = true_ms, np.random.default_rng(seed)
        self.noise, self.outliers, self.calls = noise, outliers, []

    def __call__(self, numbers, n_rounds, offset):
        self.calls.append((tuple(numbers), n_rounds, offset))
        load = self.rng.uniform(1, 3, n_rounds)
        return [
            list(
                self.true_ms[n]
                * load
                * np.exp(self.rng.normal(0, self.noise, n_rounds))
                * np.where(self.rng.random(n_rounds) < self.outliers, self.rng.uniform(1, 10, n_rounds), 1)
            )
            for n in numbers
        ]


def test_an_order_that_is_plain_takes_the_first_rounds_only():
    machine = Machine({0: 1.0, 1: 2.0}, outliers=0.0)
    times = race([record(0, 98.0), record(1, 99.0)], AXES, machine)
    assert machine.calls == [((0, 1), FIRST_ROUNDS, 0)]
    assert all(len(row) == FIRST_ROUNDS for row in times.values())


def test_only_models_whose_order_is_open_are_timed_on():
    machine = Machine({0: 1.0, 1: 1.01, 2: 5.0}, noise=0.06, outliers=0.0)
    times = race([record(0, 98.0), record(1, 98.0), record(2, 99.0)], AXES, machine)
    assert {numbers for numbers, _, offset in machine.calls if offset >= FIRST_ROUNDS} == {(0, 1)}
    assert times[2][FIRST_ROUNDS:] == [None] * (len(times[2]) - FIRST_ROUNDS)
    assert len({len(row) for row in times.values()}) == 1


def test_rounds_are_bounded_where_nothing_is_decided():
    machine = Machine({0: 1.0, 1: 1.0}, noise=0.5)
    times = race([record(0, 98.0), record(1, 98.0)], AXES, machine)
    assert len(times[0]) == MOST_ROUNDS


@pytest.mark.parametrize(("ms", "n_rounds"), [(1.0, 8), (1e3, 6), (1e6, 2)])
def test_slow_models_are_timed_in_fewer_rounds(monkeypatch, ms, n_rounds):
    """Two models of 1 s, run five times each in a round, take a minute for 6 rounds."""
    slow = [
        replace(record(n, 98.0), measurements=(*record(n, 98.0).measurements[:1], timed(ms))) for n in (0, 1)
    ]
    machine = Machine({0: ms, 1: ms}, noise=0.5)
    monkeypatch.setattr("search.study.race.time.monotonic", iter([0.0, 61.0]).__next__)
    times = race(slow, AXES, machine)
    assert [len(row) for row in times.values()] == [n_rounds] * 2


def test_a_model_that_nothing_depends_on_is_not_timed_on():
    """Trial 1 is slower than trial 0, and no better: its order with trial 2 does not matter."""
    rows = {0: [1.0] * 8, 1: [2.0, 2.2] * 4, 2: [2.1] * 8}
    losses = {n: np.array([-98.0]) for n in rows}
    assert undecided(rows, losses) == set()


@pytest.mark.parametrize("seed", range(20))
def test_under_changing_load_the_fastest_is_found(seed):
    """Differences of 6 % and more under a load of up to three times, 1 % noise and one outlier of ten rounds."""
    true_ms = {n: 1.06**n for n in range(5)}
    records = [record(n, 98.0) for n in np.random.default_rng(seed).permutation(5).tolist()]
    times = race(records, AXES, Machine(true_ms, seed))
    common = [r for r in range(FIRST_ROUNDS) if all(row[r] for row in times.values())]
    ratios = {n: np.median([row[r] / times[0][r] for r in common]) for n, row in times.items()}
    assert min(ratios, key=ratios.get) == 0


def test_models_that_left_early_are_compared_at_the_same_load():
    """The load doubles after the first rounds, in which trial 1 was timed."""
    times = {BASELINE: [4.0, 4.0, 8.0, 8.0], 0: [1.0, 1.0, 2.0, 2.0], 1: [2.0, 2.0, None, None]}
    assert without_load(times) == {
        BASELINE: [6.0] * 4,
        0: [1.5] * 4,
        1: [3.0, 3.0, None, None],
    }
    del times[BASELINE]
    assert without_load(times) is times


def test_the_float_model_is_timed_in_every_round():
    machine = Machine({BASELINE: 9.0, 0: 1.0, 1: 1.0}, noise=0.5)
    times = race([record(0, 98.0), record(1, 98.0), record(BASELINE, 99.0)], AXES, machine)
    assert len(times[0]) > FIRST_ROUNDS
    assert all(times[BASELINE])


def test_where_no_latency_is_an_objective_no_order_matters():
    machine = Machine({0: 1.0, 1: 1.0}, noise=0.5)
    times = race([record(0, 98.0), record(1, 98.0)], AXES[:1], machine)
    assert [len(row) for row in times.values()] == [FIRST_ROUNDS] * 2
