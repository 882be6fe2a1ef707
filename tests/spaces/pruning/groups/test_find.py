"""Which channels can be cut, and which layers are left alone."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from spaces.errors import StageError
from spaces.models.zoo.cifar_resnet import CifarResNet
from spaces.models.zoo.digits_cnn import DigitsCNN
from spaces.models.zoo.mobilenet_v2 import MobileNetV2
from spaces.models.zoo.squeezenet import SqueezeNet
from spaces.pruning.groups.find import analyse, channel_groups


class Body(nn.Module):
    """A convolution, something in the middle, and a head that takes its channels."""

    def __init__(self, middle, n=8, taken=None):
        super().__init__()
        self.first = nn.Conv2d(3, n, 3, padding=1)
        self.middle = middle
        self.head = nn.Conv2d(taken or n, 2, 1)

    def forward(self, x):
        return self.head(self.middle(torch.relu(self.first(x))))


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def names(module, shape=(3, 8, 8)):
    return {group.name: group.n_channels for group in channel_groups(module, shape)}


def only_left(module, shape=(3, 8, 8)):
    found = analyse(module, shape)
    return {layer: left.reason for left in found.left_alone for layer in left.layers}


def test_a_chain_is_cut_layer_by_layer():
    groups = channel_groups(DigitsCNN(), (1, 8, 8))
    assert [(g.name, g.n_channels, g.layers) for g in groups] == [
        (f"conv{i}.weight", n, (f"conv{i}.weight",)) for i, n in ((1, 16), (2, 32), (3, 64))
    ]
    parts = [(s.name, s.axis, s.role) for s in groups[0].slices]
    assert parts == [
        ("conv1.weight", 0, "out"),
        ("bn1.weight", 0, "norm"),
        ("bn1.bias", 0, "norm"),
        ("bn1.running_mean", 0, "norm"),
        ("bn1.running_var", 0, "norm"),
        ("conv2.weight", 1, "in"),
    ]
    assert all(np.array_equal(s.rows, np.arange(16)[:, None]) for s in groups[0].slices)


def test_an_input_channel_after_a_flatten_is_many_features():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))
    (group,) = channel_groups(network, (3, 8, 8))
    rows = {s.name: s.rows for s in group.slices}
    assert np.array_equal(rows["4.weight"], np.arange(36).reshape(4, 9))
    assert np.array_equal(rows["0.bias"], np.arange(4)[:, None])


def test_an_input_channel_after_a_flatten_of_one_spatial_axis():
    network = nn.Sequential(nn.Conv1d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(84, 5))
    (group,) = channel_groups(network, (4, 16))
    assert np.array_equal(group.slices[-1].rows, np.arange(84).reshape(6, 14))


def test_a_perceptron():
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16), nn.GELU(), nn.Linear(16, 4)
    )
    assert names(network, (1, 8, 8)) == {"1.weight": 32, "3.weight": 16}
    assert only_left(network, (1, 8, 8)) == {"5.weight": "the network's outputs consist of its channels"}


def test_residual_streams_of_option_a():
    groups = {g.name: g for g in channel_groups(CifarResNet(20), (3, 32, 32))}
    assert {name: g.n_channels for name, g in groups.items() if len(g.layers) > 1} == {
        "conv1.weight": 16,
        "layer2.0.conv2.weight": 16,
        "layer3.0.conv2.weight": 32,
    }
    assert len(groups) == 12
    assert len(groups["conv1.weight"].layers) == 10
    rows = {
        s.name: s.rows[:, 0].tolist() for g in groups.values() for s in g.slices if s.name == "linear.weight"
    }
    widened = {name: g.pass_throughs for name, g in groups.items() if g.pass_throughs}
    assert rows == {"linear.weight": [*range(16), *range(48, 64)]}  # the last group's
    assert {p.name: (p.inputs.shape[1], p.outputs.shape[1]) for p in widened["conv1.weight"]} == {
        "layer2.0.shortcut": (1, 1),
        "layer3.0.shortcut": (1, 1),
    }
    assert [p.inputs.shape[1] for p in widened["layer3.0.conv2.weight"]] == [0]
    assert widened["conv1.weight"][1].outputs[:, 0].tolist() == list(range(24, 40))


def test_depthwise_convolutions_go_with_the_channels_that_they_filter():
    groups = {g.name: g for g in channel_groups(MobileNetV2(0.25, 10), (3, 32, 32))}
    hidden = groups["features.2.conv.0.0.weight"]
    assert hidden.layers == ("features.2.conv.0.0.weight", "features.2.conv.1.0.weight")
    assert {s.role for s in hidden.slices if s.name == "features.2.conv.1.0.weight"} == {"out"}
    assert only_left(MobileNetV2(0.25, 10), (3, 32, 32)).keys() == {"classifier.1.weight"}


def test_concatenated_branches_are_cut_one_by_one():
    found = channel_groups(SqueezeNet(10), (3, 64, 64))
    assert len(found) == 25
    second = next(g for g in found if g.name == "features.3.expand3x3.weight")
    taken = next(s for s in second.slices if s.role == "in")
    assert (taken.name, taken.rows[0, 0], taken.rows[-1, 0]) == ("features.4.squeeze.weight", 64, 127)


def test_a_grouped_convolution_loses_as_much_in_every_group():
    (first, second) = channel_groups(Body(nn.Conv2d(8, 12, 3, groups=4), taken=12), (3, 8, 8))
    rows = {s.name: s.rows.tolist() for s in first.slices}
    assert rows["first.weight"] == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert rows["middle.weight"] == [[0], [1]]
    assert (second.name, second.n_channels, second.outputs_per_channel) == ("middle.weight", 3, 4)


def test_a_depthwise_convolution_with_several_outputs_per_channel():
    (group,) = channel_groups(Body(nn.Conv2d(8, 24, 3, groups=8), taken=24), (3, 8, 8))
    rows = {s.name: s.rows.tolist() for s in group.slices}
    assert (rows["first.weight"][1], rows["middle.weight"][1]) == ([1], [3, 4, 5])


@pytest.mark.parametrize(
    "middle",
    [
        nn.ConvTranspose2d(8, 8, 2, stride=2),
        nn.ConvTranspose2d(8, 8, 2, groups=2),
        nn.ConvTranspose2d(8, 8, 2, groups=8),
        nn.Sequential(nn.Conv2d(8, 8, 1), nn.InstanceNorm2d(8, affine=True)),
        nn.PReLU(8),
        nn.PReLU(),
        nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2)),
    ],
)
def test_layers_that_shrink_with_a_group(middle):
    assert "first.weight" in names(Body(middle))


def test_channels_that_gate_others():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)

        def forward(self, x):
            y = torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))
            return x * torch.sigmoid(self.excite(y))

    groups = {g.name: g for g in channel_groups(Body(Gate()), (3, 8, 8))}
    assert groups["first.weight"].layers == ("first.weight", "middle.excite.weight")
    assert groups["middle.squeeze.weight"].n_channels == 4


def test_parameters_of_unknown_modules_shrink_with_a_group():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(8, 1, 1))

        def forward(self, x):
            return x * self.scale

    (group,) = channel_groups(Body(Scaled()), (3, 8, 8))
    (scale,) = (s for s in group.slices if s.name == "middle.scale")
    assert (scale.axis, scale.role, scale.rows.shape) == (0, "other", (8, 1))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + x.flip(1),  # runs after the cut, but with wrong outputs
        lambda x: functional.softmax(x, dim=1),
        lambda x: functional.group_norm(x, 2),
        lambda x: x - x.mean(1, keepdim=True),
        lambda x: x.cumsum(1),
    ],
)
def test_a_wrong_dependency_that_does_not_crash_is_found(function):
    reasons = only_left(Body(Function(function)))
    assert names(Body(Function(function))) == {}
    assert "outputs are wrong" in reasons["first.weight"] or "does not run" in reasons["first.weight"]


def test_only_the_wrong_group_is_left_alone():
    middle = nn.Sequential(
        nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 8, 1), Function(lambda x: x + x.flip(1))
    )
    assert names(Body(middle)) == {"first.weight": 8, "middle.0.weight": 6}
    assert "outputs are wrong" in only_left(Body(middle))["middle.2.weight"]


def test_fixed_sizes_in_forward_are_found():
    reasons = only_left(Body(Function(lambda x: x.view(-1, 8, 64).view(-1, 8, 8, 8))))
    assert "does not run" in reasons["first.weight"]


def test_layers_without_a_rule_are_named():
    class Attentive(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            y = x.flatten(2).transpose(1, 2)
            return self.attention(y, y, y)[0].transpose(1, 2).unflatten(2, x.shape[2:])

    reasons = only_left(Body(Attentive()))
    assert "middle" in reasons["first.weight"]
    assert "MultiheadAttention" in reasons["first.weight"]


def test_weights_that_modules_share_are_left_alone():
    shared = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1))
    shared[1].weight = shared[0].weight
    assert "shared" in only_left(Body(shared))["first.weight"]


@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
def test_weights_that_are_made_otherwise_than_by_weight_norm_are_left_alone(norm):
    derived = Body(norm(nn.Conv2d(8, 8, 1))).eval()
    reasons = only_left(derived)
    assert reasons["middle.weight"] == (
        "middle.weight is no plain parameter of its module: it is made by SpectralNorm"
    )
    assert reasons["first.weight"] == reasons["middle.weight"]


def test_a_shortcut_over_the_input_is_left_alone():
    class Shortcut(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 2, 1)

        def forward(self, x):
            return self.head(x + self.conv(x))

    assert "does not run" in only_left(Shortcut())["conv.weight"]


@pytest.mark.parametrize("pack", [tuple, list, lambda some: dict(zip("ab", some, strict=True))])
def test_no_output_is_cut(pack):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 5, 1)

        def forward(self, x):
            x = torch.relu(self.stem(x))
            return pack([self.a(x), self.b(x).flatten(1)])

    assert names(Two()) == {"stem.weight": 8}
    assert only_left(Two()).keys() == {"a.weight", "b.weight"}


def test_the_network_stays_as_it_is(capsys):
    module = CifarResNet(8).train()
    module.conv1.weight.requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        first, second = (channel_groups(module, (3, 32, 32)) for _ in range(2))
    assert [g.name for g in first] == [g.name for g in second]
    assert "conv1.weight" in {g.name for g in first}  # frozen, but not protected
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module.training
    assert not module.conv1.weight.requires_grad
    assert all(p.grad is None for p in module.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert capsys.readouterr() == ("", "")


def test_zero_weights_do_not_hide_a_wrong_dependency():
    module = Body(Function(lambda x: x + x.flip(1)))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert names(module) == {}


def test_a_network_without_gradients_is_traced():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        @torch.no_grad()
        def forward(self, x):
            return self.head(self.conv(x).detach())

    assert names(Hidden()) == {"conv.weight": 4}


def test_a_network_that_does_not_run_names_the_module():
    with pytest.raises(
        StageError, match=r"DigitsCNN does not run on inputs \(2, 3, 8, 8\) in its module 'conv1'"
    ):
        analyse(DigitsCNN(), (3, 8, 8))


def test_a_module_may_declare_how_it_maps_channels():
    class Reversed(nn.Module):
        def channel_map(self, n_inputs):
            return range(n_inputs)[::-1]

        def keep_channels(self, inputs, outputs):
            assert len(inputs) == len(outputs)

        def forward(self, x):
            return x.flip(1)

    class Network(Body):
        def forward(self, x):
            x = torch.relu(self.first(x))
            return self.head(torch.relu(self.middle(x)))

    (group,) = channel_groups(Network(Reversed()), (3, 8, 8))
    rows = {s.name: s.rows[:, 0].tolist() for s in group.slices}
    assert rows["first.weight"] == rows["head.weight"][::-1]
