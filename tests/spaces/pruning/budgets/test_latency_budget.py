"""Latency budgets are met with few calls, for any dependence of the latency on MACs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.errors import StageError
from spaces.pruning.budgets.budget import Limits, Ranking
from spaces.pruning.budgets.latency_budget import MOST_CALLS, within_latency
from spaces.pruning.budgets.target import TOLERANCE, Budget
from spaces.pruning.groups.group import Group, Slice

GROUPS = tuple(
    Group(name, (name,), n, (Slice(name, 0, np.arange(n)[:, None], "out"),))
    for name, n in zip("abc", (32, 64, 96), strict=True)
)
MOST = np.array([32, 64, 96])
RANKING = Ranking(GROUPS, tuple(np.random.default_rng(i).random(g.n_channels) for i, g in enumerate(GROUPS)))


def products(n_kept):
    a, b, c = (n_kept[..., i] for i in range(3))
    return 27 * a + 9 * a * b + 9 * b * c + 10 * c


MACS = Budget(1.0, int(products(MOST)), products, "macs")


class Model:
    def __init__(self, curve):
        self.curve, self.calls = curve, []

    def __call__(self, n_kept):
        self.calls.append(n_kept.tolist())
        return self.curve(float(MACS.shares(n_kept)))


def search(keep, model, most=MOST, limits=None):
    return within_latency(keep, model, MACS, RANKING, most, limits or Limits())


CURVES = {
    "proportional": lambda x: x,
    "overhead": lambda x: 0.2 + 0.8 * x,
    "root": lambda x: x**0.5,
    "square": lambda x: x**2,
    "steps": lambda x: np.ceil(x * 20) / 20,
}


@given(st.sampled_from(list(CURVES)), st.floats(0.3, 0.97))
def test_is_met_with_few_calls(curve, keep):
    model = Model(CURVES[curve])
    try:
        n_kept = search(keep, model)
    except StageError:
        assert curve == "steps"  # where no cut lies between two steps
        assert (
            abs(keep - np.ceil(keep * 20) / 20) > TOLERANCE
            or abs(keep - np.floor(keep * 20) / 20) > TOLERANCE
        )
    else:
        assert abs(model.curve(float(MACS.shares(n_kept))) - keep) <= TOLERANCE
    assert len(model.calls) <= MOST_CALLS
    assert len({tuple(n) for n in model.calls}) == len(model.calls)


def test_a_linear_dependence_takes_two_calls():
    model = Model(CURVES["overhead"])
    search(0.6, model)
    assert len(model.calls) <= 2


def test_a_budget_is_met_after_cuts_by_ratio():
    model, most = Model(CURVES["overhead"]), np.array([16, 64, 96])
    n_kept = search(0.5, model, most)
    assert np.all(n_kept <= most)
    assert abs(model.curve(float(MACS.shares(n_kept))) - 0.5) <= TOLERANCE


def test_ratios_that_leave_less_than_the_budget_are_the_result():
    most = np.array([8, 16, 24])
    assert search(0.9, Model(CURVES["proportional"]), most) is most


def test_a_budget_that_cannot_be_met_raises_with_the_shares_tried():
    with pytest.raises(
        StageError, match=r"prune\.keep=0\.3 cannot be met within 0\.02: .* leave 0\.8.*latency_ms"
    ):
        search(0.3, Model(lambda x: 0.8 + 0.2 * x))
