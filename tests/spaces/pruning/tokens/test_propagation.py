import pytest
import torch

from spaces.pruning.tokens.graphs import normalised, spatial_graph
from spaces.pruning.tokens.importance import attention_importance
from spaces.pruning.tokens.propagation import PropagatingBlocks, Propagation
from spaces.pruning.tokens.testing import SmallTransformer

PLAIN = Propagation(2, "mixed_max", "spatial", 4, 0.1, False)


def _network(**settings):
    torch.manual_seed(0)
    return SmallTransformer((3, 16, 16), **settings).eval()


def _reduced(network, settings, seed=0):
    grid, front = network.token_grid, network.class_tokens
    return PropagatingBlocks(network.blocks, settings, grid, front, seed)


def test_dropping_nothing_is_the_identity():
    network, x = _network(), torch.randn(2, 16, 16)
    settings = Propagation(0, "mixed_max", "mixed", 4, 0.1, True)
    torch.testing.assert_close(_reduced(network, settings)(x), network.blocks(x), rtol=0, atol=0)


@pytest.mark.parametrize("has_class", [False, True])
@pytest.mark.parametrize("graph", ["spatial", "semantic", "mixed"])
def test_each_block_drops_as_many_tokens(graph, has_class):
    network = _network(has_class=has_class)
    blocks = _reduced(network, Propagation(3, "mixed_mean", graph, 4, 0.2, True))
    assert blocks(torch.randn(2, 16 + has_class, 16)).shape == (2, 16 + has_class - 3 * 3, 16)


def test_without_propagation_it_is_plain_dropping():
    network, x = _network(has_class=True), torch.randn(2, 17, 16)
    found = _reduced(network, Propagation(2, "mixed_max", "mixed", 4, 0.0, True))(x)
    for block in network.blocks:
        x, attention = block.attend(x)
        scores = attention_importance(attention, 1, "mixed_max")
        kept = scores.argsort(1, descending=True)[:, :-2].sort(1).values + 1
        x = torch.cat([x[:, :1], x.gather(1, kept.unsqueeze(2).expand(-1, -1, 16))], 1)
        x = block.feed(x)
    torch.testing.assert_close(found, x)


def test_neighbours_get_the_values_of_those_that_go():
    """One block whose parts do nothing: x_kept + alpha A[kept, gone] x_gone, by hand."""
    network, x = _network(depth=1), torch.randn(1, 16, 16)
    block = network.blocks[0]
    block.attend = lambda tokens, bias=None: (tokens, torch.diag(torch.arange(16.0))[None, None])
    block.feed = lambda tokens: tokens
    found = _reduced(network, Propagation(3, "diagonal_max", "spatial", 4, 0.3, False))(x)
    graph = normalised(spatial_graph((4, 4)))
    torch.testing.assert_close(found, x[:, 3:] + 0.3 * graph[3:, :3] @ x[:, :3])


def test_tokens_that_took_others_in_count_for_more():
    network, x = _network(depth=2), torch.randn(1, 16, 16)
    biases = []
    attend = network.blocks[1].attend
    network.blocks[1].attend = lambda tokens, bias=None: (biases.append(bias), attend(tokens, bias))[1]
    _reduced(network, Propagation(3, "diagonal_max", "spatial", 4, 0.5, True))(x)
    scales = biases[0].exp()
    assert scales.shape == (1, 13)
    assert bool((scales >= 0.999).all())
    assert scales.max() > 1.05


def test_a_random_selection_is_of_the_seed():
    network, x = _network(), torch.randn(2, 16, 16)
    settings = Propagation(4, "random", "spatial", 4, 0.0, False)
    first, again, other = (_reduced(network, settings, seed)(x) for seed in (0, 0, 1))
    torch.testing.assert_close(first, again)
    assert not torch.allclose(first, other)
