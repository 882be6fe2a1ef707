import copy

import pytest
import torch
from torch import nn

from spaces.models.zoo.cifar_resnet import CifarResNet
from spaces.stages.artifact import InputSpec
from spaces.stages.torch_artifact import torch_artifact
from spaces.stages.torch_file import packed, unpacked


class Net(nn.Module):
    """Two convolutions, a removable block, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.block = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
        self.linear = nn.Linear(8, 4)
        self.register_buffer("offset", torch.zeros(4))

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.linear(self.block(x).mean((2, 3))) + self.offset


def artifact(module):
    return torch_artifact(module, InputSpec((3, 8, 8)))


@pytest.fixture
def template():
    torch.manual_seed(0)
    return artifact(Net())


def narrowed(module, kept=5):
    """Cuts the first convolution's channels by hand."""
    module = copy.deepcopy(module)
    module.conv1.weight = nn.Parameter(module.conv1.weight[:kept].detach())
    module.conv1.out_channels = kept
    for name in ("weight", "bias"):
        setattr(module.bn1, name, nn.Parameter(getattr(module.bn1, name)[:kept].detach()))
    module.bn1.running_mean, module.bn1.running_var = (
        module.bn1.running_mean[:kept],
        module.bn1.running_var[:kept],
    )
    module.bn1.num_features = kept
    conv = module.block[0]
    conv.weight = nn.Parameter(conv.weight[:, :kept].detach())
    conv.in_channels = kept
    return module


def round_trip(changed, template):
    data = packed(changed, template)
    assert data is not None
    return unpacked(data, template)


def test_weights_and_notes_are_restored(template):
    module = copy.deepcopy(template.model)
    with torch.no_grad():
        module.linear.weight.add_(1.0)
        module.offset.fill_(2.0)
    changed = artifact(module)
    changed.notes["recover"] = {"epochs": 3}
    back = round_trip(changed, template)
    assert back.digest == changed.digest != template.digest
    assert back.notes == {"recover": {"epochs": 3}}
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(back.model(x), module.eval()(x))


def test_narrower_layers_are_restored(template):
    changed = artifact(narrowed(template.model))
    back = round_trip(changed, template)
    assert back.digest == changed.digest
    assert back.model.conv1.out_channels == 5
    assert back.model.bn1.num_features == 5
    assert repr(back.model) == repr(changed.model)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(back.model(x), changed.model(x))


def test_a_removed_block_stays_removed(template):
    module = copy.deepcopy(template.model)
    module.block = nn.Identity()
    back = round_trip(artifact(module), template)
    assert type(back.model.block) is nn.Identity
    assert [n for n, _ in back.model.named_parameters()] == [n for n, _ in module.named_parameters()]


def test_plain_attributes_of_modules_are_restored():
    torch.manual_seed(0)
    template = artifact(CifarResNet(8))
    module = copy.deepcopy(template.model)
    module.layer2[0].shortcut.before = 3
    assert round_trip(artifact(module), template).model.layer2[0].shortcut.before == 3


def test_a_parameter_may_be_new(template):
    module = copy.deepcopy(template.model)
    module.conv1.bias = nn.Parameter(torch.ones(8))
    assert torch.equal(round_trip(artifact(module), template).model.conv1.bias, torch.ones(8))


def test_changes_that_cannot_be_expressed_return_none(template):
    module = copy.deepcopy(template.model)
    module.block = nn.Conv2d(8, 8, 1)
    assert packed(artifact(module), template) is None
    module = copy.deepcopy(template.model)
    module.extra = nn.Linear(2, 2)
    assert packed(artifact(module), template) is None


def test_the_template_is_not_changed(template):
    before = copy.deepcopy(template.model.state_dict())
    round_trip(artifact(narrowed(template.model)), template)
    after = template.model.state_dict()
    assert template.model.conv1.out_channels == 8
    assert all(torch.equal(before[name], after[name]) for name in before)


class Recurrent(nn.Module):
    """A recurrent layer, which keeps a list of its weights, and two linear layers with one weight."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(3, 4, batch_first=True)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.first.bias.requires_grad_(False)

    def forward(self, x):
        return self.second(self.first(self.rnn(x)[0][:, -1]))


def test_recurrent_tied_and_frozen_weights_are_restored():
    torch.manual_seed(0)
    template = torch_artifact(Recurrent(), InputSpec((5, 3)))
    module = copy.deepcopy(template.model)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2.0)
    changed = torch_artifact(module, template.input)
    back = round_trip(changed, template)
    assert back.digest == changed.digest
    assert back.model.second.weight is back.model.first.weight
    assert not back.model.first.bias.requires_grad
    x = torch.randn(2, 5, 3)
    assert torch.equal(back.model(x), module(x))
