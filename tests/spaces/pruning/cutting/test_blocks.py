"""Which blocks can be removed, how important they are, which ones are removed."""

import math

import pytest
import torch
from torch import nn

from spaces.errors import StageError
from spaces.models.zoo.cifar_resnet import CifarResNet
from spaces.models.zoo.mobilenet_v2 import MobileNetV2
from spaces.pruning.cutting.block_search import removable_blocks
from spaces.pruning.cutting.blocks import cosine_distances, drop_blocks, most_eligible, output_changes


class Residual(nn.Module):
    def __init__(self, n=4, scale=1.0):
        super().__init__()
        self.a, self.b, self.scale = nn.Conv2d(n, 2 * n, 1), nn.Conv2d(2 * n, n, 1), scale

    def forward(self, x):
        return x + self.scale * self.b(torch.relu(self.a(x)))


class Layer(nn.Module):
    """As in a transformer: both branches keep their input's shape, but neither is a block by itself."""

    def __init__(self):
        super().__init__()
        self.attend = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
        self.mix = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6))

    def forward(self, x):
        x = x + self.attend(x)
        return x + self.mix(x)


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(3))
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.stack, self.head = Encoder(), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.stack(x))


class Encoder(Stack):
    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_resnet_blocks_of_equal_width():
    expected = [f"layer{i}.{j}" for i in (1, 2, 3) for j in range(3) if i == 1 or j]
    assert list(removable_blocks(CifarResNet(20), (3, 32, 32))) == expected


def test_inverted_residuals_with_a_shortcut():
    found = removable_blocks(MobileNetV2(0.25, 10), (3, 64, 64))
    network = MobileNetV2(0.25, 10)
    assert {"features.3", "features.5", "features.6"} <= set(found)
    assert all(
        name.count(".") == 1
        for name in found
        if network.get_submodule(name).__class__.__name__ == "InvertedResidual"
    )


@pytest.mark.parametrize(
    ("module", "prefix"), [(Stack(), ""), (Wrapped(), "stack."), (nn.Sequential(Stack()), "0.")]
)
def test_stacks_are_split_into_blocks_but_blocks_not_into_branches(module, prefix):
    found = removable_blocks(module, (5, 6))
    assert list(found) == [f"{prefix}layers.{i}" for i in range(3)]


def test_modules_that_are_no_blocks():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.Conv2d(4, 4, 1),  # a bare layer
        nn.Sequential(nn.ReLU(), nn.MaxPool2d(1)),  # no weights
        nn.Sequential(nn.Conv2d(4, 4, 3)),  # another shape
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()),
    )
    assert removable_blocks(network, (3, 8, 8)) == ("4",)


def test_a_module_that_runs_twice_or_takes_two_arguments_is_no_block():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.twice, self.more = Residual(3), Added()

        def forward(self, x):
            return self.more(self.twice(self.twice(x)), x)

    class Added(Residual):
        def __init__(self):
            super().__init__(3)

        def forward(self, x, y):
            return super().forward(x) + y

    assert removable_blocks(Odd(), (3, 4, 4)) == ()


def test_a_network_that_does_not_run():
    with pytest.raises(StageError, match="CifarResNet does not run on inputs"):
        removable_blocks(CifarResNet(8), (1, 32, 32))


def test_dropped_blocks_are_identities():
    torch.manual_seed(0)
    network = nn.Sequential(Residual(), Residual(), nn.Conv2d(4, 2, 1)).eval()
    x = torch.randn(3, 4, 5, 5)
    smaller = drop_blocks(network, ["0"])
    assert torch.equal(smaller(x), network[2](network[1](x)))
    assert isinstance(network[0], Residual)
    assert [name for name, _ in smaller.named_children()] == ["0", "1", "2"]


def test_measures_by_hand():
    torch.manual_seed(0)
    network = nn.Sequential(Residual(), Residual(scale=0.0), nn.Conv2d(4, 2, 1)).eval()
    x = torch.randn(70, 4, 5, 5)
    with torch.no_grad():
        y, without = network(x).double(), network[2](network[1](x)).double()
        inner = network[0](x).flatten(1).double()
    changes = output_changes(network, ["0", "1"], x)
    assert changes["0"] == pytest.approx(float((y - without).square().mean() / y.square().mean()))
    assert changes["1"] == 0.0
    cosines = cosine_distances(network, ["0", "1"], x)
    wanted = 1 - nn.functional.cosine_similarity(x.flatten(1).double(), inner).mean()
    assert cosines["0"] == pytest.approx(float(wanted))
    assert cosines["1"] == pytest.approx(0.0, abs=1e-12)


def test_measures_leave_the_network_as_it_was():
    network = nn.Sequential(Residual(), Residual(), nn.ReLU(inplace=True)).eval()
    blocks, x = [network[0], network[1]], torch.randn(4, 4, 2, 2)
    for measure in (output_changes, cosine_distances):
        measure(network, ["0", "1"], x)
    assert [network[0], network[1]] == blocks
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def test_of_equally_important_blocks_later_ones_are_removed_first():
    assert most_eligible(dict.fromkeys("abcd", 0.1), 2) == ["c", "d"]


def test_less_important_blocks_are_removed_first():
    assert most_eligible({"a": 0.01, "b": 1.0, "c": 1.0, "d": 1.0}, 1) == ["a"]
    ratio = math.exp(3 / 4)  # how much more important the last of four may be than the first
    assert most_eligible({"a": 1.0, "b": 9.0, "c": 9.0, "d": ratio * 0.99}, 1) == ["d"]
    assert most_eligible({"a": 1.0, "b": 9.0, "c": 9.0, "d": ratio * 1.01}, 1) == ["a"]


def test_a_protected_block_is_never_removed():
    assert most_eligible({"a": 1.0, "b": math.inf, "c": 1.0}, 2) == ["a", "c"]
