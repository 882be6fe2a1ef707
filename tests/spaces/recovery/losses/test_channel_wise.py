import pytest
import torch
from torch import nn

from spaces.recovery.losses.channel_wise import ChannelWise, channel_wise_loss
from spaces.recovery.losses.hooks import hooked, matching_modules


def features(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_the_formula():
    student, teacher, temperature = features(0, 2, 3, 4, 5), features(1, 2, 3, 4, 5), 2.5
    total = torch.zeros((), dtype=torch.float64)
    for b in range(2):
        for c in range(3):
            p = (teacher[b, c].flatten() / temperature).softmax(0)
            q = (student[b, c].flatten() / temperature).softmax(0)
            total += (p * (p / q).log()).sum() / 2
    torch.testing.assert_close(channel_wise_loss(student, teacher, temperature), temperature**2 / 3 * total)


def test_only_the_distribution_over_positions_counts():
    student = features(0, 2, 3, 6)
    shifted = student + torch.tensor([5.0, -1.0, 0.0])[:, None]
    assert channel_wise_loss(student, shifted, 1.0).item() == pytest.approx(0.0, abs=1e-9)


def test_other_numbers_of_channels_are_projected_by_trained_convolutions():
    loss = ChannelWise({"a": (3, 3), "b": (2, 4)}, 1.0, seed=0)
    assert [tuple(p.shape) for p in loss.parameters()] == [(4, 2, 1), (4,)]
    ours = {"a": features(0, 2, 3, 5, 5).float(), "b": features(1, 2, 2, 3, 3).float().requires_grad_()}
    theirs = {"a": features(2, 2, 3, 5, 5).float(), "b": features(3, 2, 4, 3, 3).float()}
    value = loss(ours, theirs)
    torch.autograd.backward(value)
    assert value > 0
    assert ours["b"].grad.any()
    assert all(p.grad.any() for p in loss.parameters() if p.ndim > 1)


def test_a_seed_draws_the_projections():
    weights = [next(ChannelWise({"b": (2, 4)}, 1.0, seed).parameters()) for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


class Groups(nn.Module):
    """Two groups of modules, with a shortcut around the first; the second at half the resolution."""

    def __init__(self, inner=4, outer=4):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, inner, 3, padding=1), nn.Conv2d(inner, outer, 3, padding=1))
        self.second = nn.Sequential(nn.Conv2d(outer, inner, 3, 2, 1), nn.Conv2d(inner, outer, 3, padding=1))
        self.head = nn.Linear(outer, 2)

    def forward(self, x):
        return self.head(self.second(self.first(x) + x).mean((2, 3)))


@pytest.mark.parametrize(
    ("student", "wanted"),
    [
        (Groups(2), {"first": (4, 4), "second": (4, 4)}),
        (Groups(4, 3), {"first.0": (4, 4), "second.0": (4, 4)}),
        (Groups(2, 3), {"first": (3, 4), "second": (3, 4)}),
    ],
)
def test_the_last_of_every_resolution_is_matched_with_equal_channels_if_there_are_any(student, wanted):
    inputs = torch.zeros(2, 1, 8, 8)
    assert matching_modules(student.eval(), Groups().eval(), inputs) == wanted


def test_nothing_matches_where_there_is_only_one_position():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    assert matching_modules(net, net, torch.zeros(2, 4)) == {}


def test_hooks_record_features_until_the_block_ends():
    net = Groups()
    inputs = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with hooked(net, ("second", "first.1")) as recorded:
        net(inputs)
        assert list(recorded) == ["first.1", "second"]
        torch.testing.assert_close(recorded["first.1"], net.first(inputs))
        recorded.clear()
    net(inputs)
    assert not recorded
    assert not any(m._forward_hooks for m in net.modules())
