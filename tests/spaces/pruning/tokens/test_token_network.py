import pytest
import torch
from torch import nn

from spaces.errors import StageError
from spaces.pruning.tokens.testing import SmallTransformer, TokenNetworkConformance
from spaces.pruning.tokens.token_network import TokenNetwork


class TestImages(TokenNetworkConformance):
    @pytest.fixture
    def network(self):
        torch.manual_seed(0)
        return SmallTransformer((3, 16, 16), has_class=True)

    @pytest.fixture
    def examples(self):
        return torch.randn(2, 3, 16, 16)


class TestSignals(TokenNetworkConformance):
    @pytest.fixture
    def network(self):
        torch.manual_seed(0)
        return SmallTransformer((6, 64))

    @pytest.fixture
    def examples(self):
        return torch.randn(2, 6, 64)


def test_blocks_are_found_in_a_part_of_the_network():
    found = TokenNetwork.of(nn.Sequential(nn.Identity(), SmallTransformer((3, 8, 8))))
    assert (len(found.blocks), found.grid, found.n_class) == (3, (2, 2), 0)


def test_networks_without_blocks_are_refused():
    with pytest.raises(StageError, match="no part of it has an attribute `token_blocks`"):
        TokenNetwork.of(nn.Linear(2, 2))
    network = SmallTransformer((3, 8, 8))
    network.blocks = nn.ModuleList(network.blocks)
    with pytest.raises(StageError, match=r"must name an nn\.Sequential"):
        TokenNetwork.of(network)
