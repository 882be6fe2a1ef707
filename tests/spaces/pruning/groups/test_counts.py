"""Counts, against arithmetic by hand and published figures."""

import pytest
import torch
from torch import nn

from spaces.errors import StageError
from spaces.models.zoo.cifar_resnet import CifarResNet
from spaces.models.zoo.mobilenet_v2 import MobileNetV2
from spaces.pruning.groups.counts import Counts, layer_counts, total


@pytest.mark.parametrize(
    ("layer", "shape", "macs", "parameters"),
    [
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 9, 7), 5 * 4 * 8 * 27, 8 * 27 + 8),
        (nn.Conv2d(6, 12, 3, groups=3, bias=False), (6, 5, 5), 9 * 12 * 2 * 9, 12 * 2 * 9),
        (nn.Conv1d(4, 5, 3, dilation=2), (4, 16), 12 * 5 * 12, 65),
        (nn.Conv3d(2, 3, 2), (2, 4, 4, 4), 27 * 3 * 2 * 8, 51),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (4, 3, 5), 15 * 4 * 6 * 4, 102),
        (nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), (4, 3, 5), 15 * 4 * 3 * 4, 54),
        (nn.Linear(7, 3), (7,), 21, 24),
        (nn.Linear(7, 3), (5, 7), 105, 24),
        (nn.BatchNorm2d(4), (4, 3, 3), 0, 8),
    ],
)
def test_one_layer(layer, shape, macs, parameters):
    counts = layer_counts(nn.Sequential(layer).eval(), shape)
    assert counts == {"0.weight": Counts(macs, parameters, 4 * parameters)}


def test_a_layer_that_runs_twice_counts_twice_but_is_stored_once():
    layer = nn.Conv2d(3, 3, 1, bias=False)
    assert layer_counts(nn.Sequential(layer, layer), (3, 2, 2)) == {"0.weight": Counts(2 * 36, 9, 36)}


@pytest.mark.parametrize(
    ("network", "shape", "macs", "parameters"),
    [
        (CifarResNet(20), (3, 32, 32), 40_551_040, 269_722),
        (MobileNetV2(), (3, 224, 224), 300_774_272, 3_504_872),
    ],
)
def test_published_networks(network, shape, macs, parameters):
    counts = total(layer_counts(network, shape).values())
    assert (counts.macs, counts.parameters, counts.weight_bytes) == (macs, parameters, 4 * parameters)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_the_network_stays_as_it_is():
    network = CifarResNet(8).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    layer_counts(network, (3, 32, 32))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(part._forward_hooks for part in network.modules())


def test_a_network_that_does_not_run():
    with pytest.raises(StageError, match=r"CifarResNet does not run on inputs \(1, 1, 8, 8\)"):
        layer_counts(CifarResNet(8), (1, 8, 8))
