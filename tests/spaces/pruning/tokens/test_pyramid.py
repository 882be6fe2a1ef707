import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spaces.pruning.tokens.pyramid import PyramidBlocks, interpolated, sampled
from spaces.pruning.tokens.testing import SmallTransformer
from spaces.pruning.tokens.token_knobs import PICKS


def _network(**settings):
    torch.manual_seed(0)
    return SmallTransformer((6, 64), depth=4, per_step=True, **settings).eval()


@pytest.mark.parametrize("pick", PICKS)
def test_keeping_all_tokens_is_the_identity(pick):
    network, x = _network(), torch.randn(2, 6, 64)
    wanted = network(x)
    network.blocks = PyramidBlocks(network.blocks, {1: 16, 3: 16}, pick, 3, True, 0)
    torch.testing.assert_close(network(x), wanted)


@pytest.mark.parametrize("pick", PICKS)
@pytest.mark.parametrize("has_class", [False, True])
def test_the_full_length_is_restored_without_parameters(pick, has_class):
    network, x = _network(has_class=has_class), torch.randn(2, 6, 64)
    before, names = network(x), [name for name, _ in network.named_parameters()]
    network.blocks = PyramidBlocks(network.blocks, {1: 8, 3: 4}, pick, 3, True, int(has_class))
    seen = []
    network.blocks[3].register_forward_hook(lambda _, given, out: seen.append(out))
    found = network(x)
    assert found.shape == before.shape
    assert seen[0].shape[1] == 4 + has_class
    assert [name for name, _ in network.named_parameters()] == names
    network.blocks.recover = False
    assert network(x).shape[1] == 4


def test_a_uniform_sample_has_both_ends():
    assert sampled(7, 3).tolist() == [0, 3, 6]
    assert sampled(9, 9).tolist() == list(range(9))


@given(n=st.integers(1, 40), data=st.data())
def test_a_uniform_sample_is_sorted_and_unique(n, data):
    places = sampled(n, data.draw(st.integers(1, n)))
    assert bool((places[1:] > places[:-1]).all())
    assert 0 <= places[0] <= places[-1] < n


@given(n=st.integers(1, 20), seed=st.integers(0, 99), data=st.data())
def test_interpolation_is_linear_between_the_places_and_constant_beyond(n, seed, data):
    k = data.draw(st.integers(1, n))
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(n, generator=generator)[:k].sort().values
    values = torch.randn(1, k, 2, generator=generator, dtype=torch.float64)
    found = interpolated(values, places[None], n)[0]
    import numpy as np

    for axis in range(2):
        np.testing.assert_allclose(
            found[:, axis], np.interp(np.arange(n), places, values[0, :, axis]), atol=1e-12
        )


def test_costs_are_those_of_the_formula():
    """Linear layers and attention of each block: 12 n d^2 + 2 n^2 d (H2OT)."""
    from torch.utils.flop_counter import FlopCounterMode

    network, d = _network(), 16
    network.blocks = PyramidBlocks(network.blocks, {1: 8, 3: 4}, "sample", 3, False, 0)
    with FlopCounterMode(display=False) as counter:
        network.blocks(torch.randn(1, 16, d))
    assert counter.get_total_flops() // 2 == sum(12 * n * d * d + 2 * n * n * d for n in (16, 8, 8, 4))
