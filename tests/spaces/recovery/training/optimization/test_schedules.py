import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spaces.recovery.training.optimization.schedules import SCHEDULES, factor_at


@given(st.sampled_from(sorted(SCHEDULES)), st.integers(1, 500), st.data())
def test_factors_lie_above_zero_and_up_to_one(schedule, n_steps, data):
    step = data.draw(st.integers(0, n_steps - 1))
    assert 0 < factor_at(schedule, step, n_steps) <= 1


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_decay_is_symmetric_around_a_half(schedule):
    factors = [factor_at(schedule, step, 10) for step in range(10)]
    assert factors == sorted(factors, reverse=True)
    assert [a + b for a, b in zip(factors, factors[::-1], strict=True)] == pytest.approx([1.0] * 10)


def test_constant_stays():
    assert {factor_at("constant", step, 7) for step in range(7)} == {1.0}


def test_one_cycle_is_that_of_torch():
    n_steps = 1000
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=n_steps, cycle_momentum=False)
    for step in range(n_steps):
        assert factor_at("one_cycle", step, n_steps) == pytest.approx(theirs.get_last_lr()[0], abs=0.01)
        optimizer.step()
        theirs.step()
