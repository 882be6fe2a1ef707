import pytest
import torch
from torch import nn

from spaces.architectures.counting import Counts, counts_of
from spaces.models.zoo.mobilenet_v2 import MobileNetV2


def counts(module, shape):
    return counts_of(module, shape)


def test_a_published_network_has_its_published_costs():
    """MobileNetV2 1.0: 3,504,872 parameters and 300.8 million multiply-accumulates (arXiv 1801.04381, table 4)."""
    with torch.device("meta"):
        module = MobileNetV2()
    found = counts(module, (3, 224, 224))
    assert (found.parameters, found.macs) == (3_504_872, 300_774_272)
    assert found.peak_activation_bytes == 4 * 112 * 112 * (
        96 + 96 // 4
    )  # first depthwise convolution of stride 2


def test_a_linear_layer():
    assert counts(nn.Linear(10, 3), (10,)) == Counts(30, 33, 4 * 13)


@pytest.mark.parametrize("bias", [False, True])
def test_convolutions_count_by_groups(bias):
    conv = nn.Conv2d(8, 16, 3, padding=1, groups=4, bias=bias)
    assert counts(conv, (8, 5, 5)).macs == 25 * 16 * 2 * 9


def test_an_elementwise_operator_writes_over_an_input_that_is_not_used_any_more():
    chain = nn.Sequential(nn.Conv1d(2, 2, 1, bias=False), nn.BatchNorm1d(2), nn.ReLU())
    assert counts(chain, (2, 6)).peak_activation_bytes == 4 * (12 + 12)


class Shortcut(nn.Module):
    def forward(self, x):
        return x + torch.relu(torch.sin(x))


def test_an_input_that_is_used_later_stays():
    assert counts(Shortcut(), (6,)).peak_activation_bytes == 4 * 12


def test_a_shared_weight_counts_once():
    layer = nn.Linear(4, 4)
    assert counts(nn.Sequential(layer, nn.ReLU(), layer), (4,)).parameters == 20


def test_the_network_stays_in_its_mode():
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout()).train()
    counts(module, (4,))
    assert module.training
