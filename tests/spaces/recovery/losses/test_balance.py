import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spaces.models.torch.experts import MixtureOfExperts
from spaces.recovery.losses.balance import Balance


def network(n_experts, active):
    mixture = MixtureOfExperts(
        nn.Identity(), [nn.Identity() for _ in range(n_experts)], nn.Linear(4, n_experts), active
    )
    return nn.ModuleDict({"a": mixture, "b": nn.Linear(2, 2)})


def test_one_for_all_costs_as_many_as_there_are_experts_and_an_even_share_costs_one():
    loss = Balance.of(network(3, 1), 2.0)
    assert loss.names == ("a.router",)
    one = torch.tensor([[50.0, 0.0, 0.0]]).repeat(6, 1)
    assert float(loss({"a.router": one})) == pytest.approx(2 * 3)
    even = 50 * torch.eye(3).repeat(2, 1)
    assert float(loss({"a.router": even})) == pytest.approx(2 * 1)


def test_by_hand():
    """Two of two tokens choose expert 1 first; of the four choices each of 0, 1, 2 has 1, 2, 1."""
    logits = torch.tensor([[[1.0, 2.0, 0.0], [0.0, 2.0, 1.0]]])
    p = torch.softmax(logits, -1).mean((0, 1))
    expected = 3 * (0.25 * p[0] + 0.5 * p[1] + 0.25 * p[2])
    torch.testing.assert_close(Balance.of(network(3, 2), 1.0)({"a.router": logits}), expected)


@given(st.integers(1, 5), st.integers(0, 100))
def test_descent_makes_the_use_more_even(active, seed):
    logits = torch.randn(40, 5, generator=torch.Generator().manual_seed(seed)).double().requires_grad_()
    loss = Balance.of(network(5, active), 1.0)
    before = loss({"a.router": logits})
    (gradient,) = torch.autograd.grad(before, logits)
    mixture = loss.by_router["a.router"]
    shares = mixture.routed(logits)[1].mean(0)
    old, new = (torch.softmax(x.detach(), -1).mean(0) for x in (logits, logits - gradient))
    assert float((shares * new).sum()) <= float((shares * old).sum()) + 1e-12


def test_without_experts_or_weight_there_is_none():
    assert Balance.of(nn.Linear(2, 2), 1.0) is None
    assert Balance.of(network(3, 1), 0.0) is None
