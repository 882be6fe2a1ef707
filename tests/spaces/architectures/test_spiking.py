import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spaces.architectures.spiking import Spike, SpikeAttention, spike_energy


@given(levels=st.integers(1, 8), seed=st.integers(0, 99))
def test_values_are_the_sum_of_binary_spikes_exactly(levels, seed):
    x = 2 * torch.randn(50, generator=torch.Generator().manual_seed(seed))
    neuron = Spike(levels)
    spikes = neuron.unrolled(x.requires_grad_())
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}
    assert bool((neuron(x) == spikes.sum(0) / levels).all())


def test_a_layer_after_binary_spikes_adds_up_to_the_layer_after_the_values():
    torch.manual_seed(0)
    neuron, layer, x = Spike(4), nn.Linear(9, 5, bias=False), torch.randn(3, 9)
    torch.testing.assert_close(layer(neuron.unrolled(x)).sum(0) / 4, layer(neuron(x)))


def test_gradients_pass_where_nothing_is_clipped():
    x = torch.tensor([-0.3, 0.2, 0.9, 1.4], requires_grad=True)
    Spike(4)(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0]


def test_attention_has_the_tokens_mixed_as_by_the_product_of_all_pairs():
    torch.manual_seed(0)
    q, k, v = torch.rand(3, 2, 8, 5)
    found = SpikeAttention(2, 0.25)(q, k, v)
    heads = [x.reshape(2, 2, 4, 5).transpose(2, 3) for x in (q, k, v)]
    wanted = 0.25 * (heads[0] @ heads[1].transpose(2, 3)) @ heads[2]
    torch.testing.assert_close(found, wanted.transpose(2, 3).reshape(2, 8, 5))


@pytest.mark.parametrize(("value", "spikes"), [(0.0, 0), (0.5, 2), (1.0, 4)])
def test_energy_is_that_of_the_formula(value, spikes):
    network = nn.Sequential(nn.Linear(3, 6, bias=False), Spike(4), nn.Linear(6, 5))
    nn.init.constant_(network[0].weight, value / 3)
    made = spike_energy(network, torch.ones(2, 3))
    assert (made.analogue_macs, made.spiking_macs, made.spikes_per_value) == (18, 30, spikes)
    assert made.picojoules == pytest.approx(4.6 * 18 + 0.9 * spikes * 30)


@given(spikes=st.floats(0, 20), macs=st.floats(1, 1e9))
def test_spikes_save_energy_exactly_below_the_ratio_of_the_costs(spikes, macs):
    from spaces.architectures.spiking import SpikeEnergy

    made = SpikeEnergy(10.0, macs, spikes * macs)
    if abs(made.spikes_per_value - 4.6 / 0.9) > 1e-6:
        assert (made.picojoules < made.dense_picojoules) == (made.spikes_per_value < 4.6 / 0.9)
