import copy

import pytest
import torch
from torch import nn

from spaces.models.zoo.cifar_resnet import CifarResNet
from spaces.recovery.losses.block_weights import (
    BOUND,
    blocks,
    frozen_prefix,
    inverse_sensitivity,
    sensitivities,
)
from spaces.stages.torch_artifact import module_digest


@pytest.fixture
def inputs():
    return torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_blocks_are_named_up_to_their_number():
    found = blocks(CifarResNet(8))
    assert list(found) == ["conv1", "bn1", "layer1.0", "layer2.0", "layer3.0", "linear"]
    assert [name for names in found.values() for name in names] == [
        name for name, _ in CifarResNet(8).named_parameters()
    ]


def test_every_block_has_a_sensitivity_and_the_network_is_unchanged(tiny, inputs):
    module = tiny()
    before = module_digest(module)
    found = sensitivities(module, inputs, seed=0)
    assert list(found) == list(blocks(module))
    assert all(value > 0 for name, value in found.items() if not name.startswith("bn"))
    assert found == sensitivities(module, inputs, seed=0)
    assert found != sensitivities(module, inputs, seed=1)
    assert module_digest(module) == before


def test_a_block_without_effect_on_the_outputs_is_trained_most(inputs):
    """Two branches, one of which hardly reaches the output."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.loud, self.quiet = nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, x):
            x = x.flatten(1)[:, :8]
            return self.loud(x) + 0.01 * self.quiet(x)

    net = Branches()
    factors = inverse_sensitivity(net, net, inputs, seed=0)
    assert factors == {
        "loud.weight": 1 / BOUND, "loud.bias": 1 / BOUND, "quiet.weight": BOUND, "quiet.bias": BOUND,
    }  # fmt: skip


def test_factors_are_inverse_and_bounded(tiny, inputs):
    module = tiny()
    factors = inverse_sensitivity(module, module, inputs, seed=0)
    assert set(factors) == {name for name, _ in module.named_parameters()}
    assert all(1 / BOUND <= factor <= BOUND for factor in factors.values())
    by_sensitivity = sorted(sensitivities(module, inputs, seed=0).items(), key=lambda item: item[1])
    ordered = [factors[blocks(module)[block][0]] for block, _ in by_sensitivity]
    assert ordered == sorted(ordered, reverse=True)


def test_blocks_before_the_first_cut_are_frozen(tiny, inputs):
    factors = frozen_prefix(tiny(width=4), tiny(width=6), inputs, seed=0)
    assert {name for name, factor in factors.items() if factor == 0} == {
        "conv1.weight", "bn1.weight", "bn1.bias",
    }  # fmt: skip
    assert set(factors.values()) == {0.0, 1.0}


def test_a_removed_block_counts_as_a_cut(inputs):
    dense = CifarResNet(14)
    cut = copy.deepcopy(dense)
    cut.layer2[1] = nn.Identity()
    factors = frozen_prefix(cut, dense, inputs, seed=0)
    frozen = {block for block, names in blocks(cut).items() if all(factors[name] == 0 for name in names)}
    assert frozen == {"conv1", "bn1", "layer1.0", "layer1.1", "layer2.0"}


def test_without_a_cut_everything_is_trained(tiny, inputs):
    assert set(frozen_prefix(tiny(), tiny(seed=1), inputs, seed=0).values()) == {1.0}
