import torch
from torch import nn

from spaces.models.torch.folding import folded


class Twice(nn.Module):
    """A linear layer, twice: `(n, 3)` -> `(n, 2)`."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3))

    def forward(self, x):
        return nn.functional.linear(x, self.weight) + nn.functional.linear(x, self.weight)

    def folded(self):
        made = nn.Linear(3, 2, bias=False)
        made.weight = nn.Parameter(2 * self.weight.detach())
        return made


def test_parts_are_folded_and_the_network_stays_as_it_was():
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Sequential(nn.Linear(4, 3), Twice()), nn.ReLU()).train(), torch.randn(5, 4)
    made = folded(network)
    torch.testing.assert_close(made(x), network(x))
    assert isinstance(made[0][1], nn.Linear)
    assert list(made.state_dict()) == list(network.state_dict())
    assert isinstance(network[0][1], Twice)
    assert network.training
    assert not made.training


def test_a_network_without_such_parts_is_not_copied():
    network = nn.Sequential(nn.Linear(4, 3))
    assert folded(network) is network


def test_a_network_that_is_such_a_part_is_folded():
    assert isinstance(folded(Twice()), nn.Linear)
