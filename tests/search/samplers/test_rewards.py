import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from search.samplers.rewards import rewards

UP, DOWN = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
FLOATS = st.floats(allow_nan=False)


def complete(*values):
    return create_trial(values=list(values))


def failed(state=TrialState.FAIL):
    return create_trial(state=state)


def infeasible(value, excess):
    trial = complete(value)
    trial.set_constraint("small", excess)
    return trial


def test_one_objective_is_scaled_to_its_range():
    trials = [complete(1.0), complete(3.0), complete(2.0)]
    assert rewards(trials, [UP]).tolist() == [0.0, 1.0, 0.5]
    assert rewards(trials, [DOWN]).tolist() == [1.0, 0.0, 0.5]


def test_several_objectives_give_the_mean_of_their_ranks():
    trials = [complete(1.0, 100.0), complete(2.0, 1.0), complete(9.0, 0.0)]
    assert rewards(trials, [UP, UP]).tolist() == pytest.approx([0.5, 0.5, 0.5])
    assert rewards(trials, [UP, DOWN]).tolist() == pytest.approx([0.0, 0.5, 1.0])
    assert rewards([complete(1.0, 1.0), complete(1.0, 1.0)], [UP, DOWN]).tolist() == [0.5, 0.5]


def test_failed_pruned_and_infeasible_trials_get_zero_and_do_not_extend_the_range():
    trials = [
        complete(1.0),
        failed(),
        failed(TrialState.PRUNED),
        complete(math.inf),
        complete(2.0),
        infeasible(9.0, 0.1),
    ]
    assert rewards(trials, [UP]).tolist() == [0.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert rewards([infeasible(3.0, 0.0), infeasible(9.0, 1e-9)], [UP]).tolist() == [0.5, 0.0]


def test_equal_values_get_a_half():
    assert rewards([complete(4.0), complete(4.0)], [UP]).tolist() == [0.5, 0.5]
    assert rewards([], [UP]).tolist() == []


@given(st.lists(FLOATS, max_size=12), st.sampled_from([UP, DOWN]))
def test_rewards_are_in_range_and_in_order(values, direction):
    found = rewards([complete(v) for v in values], [direction])
    assert ((found >= 0) & (found <= 1)).all()
    finite = [
        (v if direction == UP else -v, r) for v, r in zip(values, found, strict=True) if math.isfinite(v)
    ]
    for (a, ra), (b, rb) in pairwise(finite):
        assert (a - b) * (ra - rb) >= 0
