import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import nn

from spaces.errors import StageError
from spaces.models.zoo.digits_cnn import DigitsCNN
from spaces.pruning.sparsity.channel_weights import channel_norms
from spaces.pruning.sparsity.group_envelope import GroupEnvelope, envelope_shares, shrink
from spaces.pruning.sparsity.sparsifier import Aim
from spaces.pruning.sparsity.sparsifying import subject_of
from spaces.pruning.sparsity.testing import small_subject
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import InputSpec
from spaces.stages.torch_artifact import torch_artifact

COSTS = st.floats(0.1, 10.0)
NORMS = st.floats(1e-3, 1e3)
PROBLEMS = st.lists(st.tuples(NORMS, COSTS), min_size=1, max_size=12)
STRENGTHS = st.floats(1e-3, 10.0)


@pytest.fixture
def subject():
    return small_subject()


def shares_of(problem, strength, part):
    norms, costs = torch.tensor(problem, dtype=torch.float64).T
    budget = part * float(costs.sum())
    return norms, costs, budget, envelope_shares(norms, costs, strength, budget)


@given(PROBLEMS, STRENGTHS, st.floats(0.01, 0.99))
def test_the_budget_is_used_up_exactly(problem, strength, part):
    _, costs, budget, shares = shares_of(problem, strength, part)
    assert float(costs @ shares) == pytest.approx(budget, rel=1e-6)
    assert bool(((shares >= 0) & (shares <= 1)).all())


@given(PROBLEMS, STRENGTHS, st.floats(0.01, 0.99))
def test_larger_norms_per_cost_get_more(problem, strength, part):
    norms, costs, _, shares = shares_of(problem, strength, part)
    order = torch.argsort(norms / costs.sqrt())
    assert bool((shares[order].diff() >= 0).all())


@given(PROBLEMS, STRENGTHS, st.floats(1.01, 2.0))
def test_everything_stays_within_a_large_budget(problem, strength, part):
    *_, shares = shares_of(problem, strength, part)
    assert shares.tolist() == [1.0] * len(problem)


@given(PROBLEMS, st.floats(0.05, 0.95))
def test_some_groups_are_exactly_zero_where_the_strength_is_high(problem, part):
    norms, costs, budget, _ = shares_of(problem, 1.0, part)
    shares = envelope_shares(norms, costs, 1e6, budget)
    factors = shrink(shares, 1e6)
    assert set(factors[shares == 0].tolist()) <= {0.0}
    if len(set((norms / costs.sqrt()).tolist())) == len(problem):  # no ties
        assert int(((shares > 0) & (shares < 1)).sum()) <= 1 + _close_ratios(norms, costs)


def _close_ratios(norms, costs):
    ratios = (norms / costs.sqrt()).sort().values
    return int((ratios.diff() / ratios[1:] < 1e-4).sum())


def test_groups_of_norm_zero_get_nothing():
    shares = envelope_shares(torch.tensor([0.0, 2.0, 1.0]).double(), torch.ones(3).double(), 0.5, 2.5)
    assert shares.tolist() == [0.0, 1.0, 1.0]
    assert envelope_shares(torch.zeros(3).double(), torch.ones(3).double(), 0.5, 1.0).tolist() == [0.0] * 3


@pytest.mark.parametrize("strength", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("part", [0.2, 0.6])
def test_it_is_the_minimum_that_a_generic_solver_finds(strength, part):
    rng = np.random.default_rng(int(100 * strength + 10 * part))
    n, d = 5, 2
    t, costs = rng.normal(size=(n, d)), rng.uniform(0.5, 3.0, n)
    budget = part * costs.sum()

    def value(x):
        w, u = x[: n * d].reshape(n, d), x[n * d :]
        return strength * 0.5 * ((w**2).sum(1) / u).sum() + 0.5 * ((w - t) ** 2).sum()

    found = minimize(
        value,
        np.concatenate([0.3 * t.ravel(), np.full(n, part)]),
        method="SLSQP",
        bounds=[(None, None)] * (n * d) + [(1e-9, 1)] * n,
        constraints={"type": "ineq", "fun": lambda x: budget - costs @ x[n * d :]},
        options={"maxiter": 2000, "ftol": 1e-14},
    )
    norms = torch.from_numpy(np.linalg.norm(t, axis=1))
    shares = envelope_shares(norms, torch.from_numpy(costs), strength, budget)
    ours = t * shrink(shares, strength).numpy()[:, None]
    assert np.abs(found.x[: n * d].reshape(n, d) - ours).max() < 1e-4


def test_another_cost_can_be_given():
    norms, costs = torch.tensor([3.0, 2.0, 1.0]).double(), torch.ones(3).double()
    shares = envelope_shares(norms, costs, 0.1, 4.0, cost_of=lambda u: float(u.sum() ** 2))
    assert float(shares.sum() ** 2) == pytest.approx(4.0, rel=1e-6)


def steps(sparsifier, n):
    for step in range(n):
        sparsifier.after_backward(step, n)
        sparsifier.after_step(step, n)


@pytest.mark.parametrize("level", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("strength", [1e-3, 0.1, 3.0])
def test_the_budget_is_met_within_two_percent(level, strength):
    torch.manual_seed(int(100 * level))
    subject = small_subject(module=DigitsCNN(n_channels=3))
    sparsifier = GroupEnvelope(subject, Aim(strength, level=level))
    steps(sparsifier, 10)
    kept = float(subject.shares.of(sparsifier.finish()))
    assert 0.98 * level <= kept <= level


def test_channels_that_are_off_are_exactly_zero_and_stay_zero(subject):
    sparsifier = GroupEnvelope(subject, Aim(0.1, level=0.25))
    steps(sparsifier, 10)
    on = sparsifier.finish()
    parameters = dict(subject.module.named_parameters())
    with torch.no_grad():  # as momentum would
        for p in subject.module.parameters():
            p.add_(0.01)
    sparsifier.after_step(9, 10)
    for group in subject.groups:
        norms = channel_norms(group, parameters)
        assert (norms > 0).tolist() == on[group.name].tolist()
        assert bool(on[group.name].any())
    assert not all(bool(mask.all()) for mask in on.values())


def test_a_resumed_training_keeps_channels_off(subject):
    steps(GroupEnvelope(subject, Aim(0.1, level=0.25)), 10)
    again = GroupEnvelope(subject, Aim(0.1, level=0.25))  # as after a restart
    before = again.finish()
    again.after_backward(9, 10)
    with torch.no_grad():
        for p in subject.module.parameters():
            p.add_(0.01)
    again.after_step(9, 10)
    assert {k: v.tolist() for k, v in again.finish().items()} == {k: v.tolist() for k, v in before.items()}


def test_the_strongest_channels_are_exempt(subject):
    parameters = dict(subject.module.named_parameters())
    before = {group.name: channel_norms(group, parameters) for group in subject.groups}
    GroupEnvelope(subject, Aim(1.0, level=0.2)).after_step(0, 100)
    for group in subject.groups:
        best = int(before[group.name].argmax())
        after = channel_norms(group, parameters)
        assert float(after[best]) == float(before[group.name][best])
        assert bool((after <= before[group.name]).all())
    assert any(bool((channel_norms(g, parameters) < before[g.name]).any()) for g in subject.groups)


def test_a_level_that_cannot_be_met_raises(subject):
    with pytest.raises(
        StageError, match=r"sparsify.level=0.001 cannot be met: .* level must be at least that"
    ):
        GroupEnvelope(subject, Aim(0.1, level=0.001))


def test_weights_that_cannot_be_scaled_are_refused():
    network = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(5, 8)), nn.ReLU(), nn.Linear(8, 3)
    )
    split = ArraySplit(np.zeros((2, 5), np.float32), np.arange(2))
    subject = subject_of(torch_artifact(network, InputSpec((5,))), split)
    with pytest.raises(StageError, match="weight norm undoes that in 0: choose another method"):
        GroupEnvelope(subject, Aim(1.0, level=1.0))
