import pytest
import torch
from torch import nn

from spaces.errors import StageError
from spaces.recovery.lora import check_rank, merged, with_low_rank
from spaces.stages.torch_artifact import module_digest


class Mixed(nn.Module):
    """A linear layer, a 1x1 convolution, and two that LoRA does not touch."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(3, 6, 3, padding=1)
        self.point = nn.Conv2d(6, 8, 1)
        self.depth = nn.Conv2d(8, 8, 1, groups=8)
        self.linear = nn.Linear(8, 5)

    def forward(self, x):
        return self.linear(self.depth(self.point(self.wide(x))).mean((2, 3)))


@pytest.fixture
def inputs():
    return torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def nudge(module):
    """Changes the parameters that can be trained."""
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1


def test_nothing_changes_at_first_and_only_low_rank_changes_can_be_trained(inputs):
    net = Mixed()
    changed = with_low_rank(net, 2, seed=0)
    torch.testing.assert_close(changed(inputs), net(inputs))
    shapes = [tuple(p.shape) for p in changed.parameters() if p.requires_grad]
    assert shapes == [(2, 6), (8, 2), (2, 8), (5, 2)]
    assert all(p.requires_grad for p in net.parameters())


def test_merged_it_has_the_old_structure_and_the_new_outputs(inputs):
    net = Mixed()
    before = module_digest(net)
    changed = with_low_rank(net, 2, seed=0)
    nudge(changed)
    result = merged(changed, net)
    assert repr(result) == repr(net)
    assert list(result.state_dict()) == list(net.state_dict())
    assert all(p.requires_grad for p in result.parameters())
    torch.testing.assert_close(result(inputs), changed(inputs))
    assert not torch.allclose(result(inputs), net(inputs))
    assert module_digest(net) == before


@pytest.mark.parametrize("rank", [1, 3])
def test_changes_have_the_rank_and_the_rest_stays(rank):
    net = Mixed()
    changed = with_low_rank(net, rank, seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in changed.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    result = merged(changed, net).state_dict()
    for name, value in net.state_dict().items():
        difference = result[name] - value
        if name in ("linear.weight", "point.weight"):
            assert torch.linalg.matrix_rank(difference.flatten(1), atol=1e-4) == rank
        else:
            assert not difference.any()


def test_small_layers_get_the_rank_that_they_have():
    changed = with_low_rank(Mixed(), 6, seed=0)
    assert [tuple(p.shape) for p in changed.parameters() if p.requires_grad][-1] == (5, 5)


def test_a_seed_draws_the_factors():
    first, again, other = (module_digest(with_low_rank(nn.Linear(4, 4), 2, seed)) for seed in (0, 0, 1))
    assert first != again or first != other  # weights of Linear differ, too
    base = nn.Linear(4, 4)
    digests = [module_digest(with_low_rank(base, 2, seed)) for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("net", "rank", "message"), [(Mixed(), 7, "largest has 6"), (nn.Conv2d(3, 3, 3), 1, "has none")]
)
def test_a_network_without_a_layer_of_the_rank_raises(net, rank, message):
    with pytest.raises(StageError, match=rf"lora_rank={rank} .*{message}"):
        with_low_rank(net, rank, seed=0)


def test_rank_zero_always_fits():
    check_rank(nn.Conv2d(3, 3, 3), 0)
