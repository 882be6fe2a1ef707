import pytest
import torch
from torch import nn

from spaces.models.zoo.cifar_resnet import CifarResNet
from spaces.models.zoo.mobilenet_v2 import MobileNetV2
from spaces.pruning.groups.residual import added_layers


class Mlp(nn.Module):
    def __init__(self, act, residual=False):
        super().__init__()
        self.a, self.b, self.act, self.residual = nn.Linear(4, 8), nn.Linear(8, 4), act, residual

    def forward(self, x):
        y = self.b(self.act(self.a(x)))
        return y + x if self.residual else y


class Excited(nn.Module):
    """A squeeze-and-excitation block: the gate multiplies, and adds nothing."""

    def __init__(self):
        super().__init__()
        self.conv, self.down, self.up = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.conv(x)
        gate = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return self.head(x * gate)


def written_out_gelu(x):
    return 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.045 * x**3)))


def hard_swish(x):
    return x * torch.relu(x + 3) / 6


def test_residual_streams():
    found = added_layers(CifarResNet(8), (3, 32, 32))
    assert found == {
        "conv1.weight",
        "layer1.0.conv2.weight",
        "layer2.0.conv2.weight",
        "layer3.0.conv2.weight",
    }


def test_inverted_residuals_have_whole_expansions():
    module = MobileNetV2()
    expanded = {
        f"{name}.weight"
        for name, part in module.named_modules()
        if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1) and part.out_channels > part.in_channels
    }
    found = added_layers(module, (3, 32, 32))
    assert found
    assert not found & expanded


@pytest.mark.parametrize("act", [torch.relu, written_out_gelu, hard_swish])
def test_a_chain_has_no_sums(act):
    assert added_layers(Mlp(act), (4,)) == frozenset()


def test_gates_are_no_sums():
    assert added_layers(Excited(), (3, 8, 8)) == frozenset()


def test_sums_with_the_input():
    assert added_layers(nn.Sequential(nn.Linear(4, 4), Mlp(torch.relu, True)), (4,)) == {
        "0.weight",
        "1.b.weight",
    }


def test_the_network_stays():
    module = CifarResNet(8).requires_grad_(False).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    added_layers(module, (3, 32, 32))
    assert module.training
    assert not any(p.requires_grad for p in module.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
