"""Networks that compute something else in train mode: what is trained is what they compute in eval mode."""

import pytest
import torch
from torch import nn

from spaces.pruning.prune import PruneStage
from spaces.recovery.recover import RecoverStage
from spaces.recovery.training.modes import computes_the_same_in_training, set_train_mode
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact

SHAPE = (1, 8, 8)


class Net(nn.Module):
    """Two convolutions with BatchNorm, and a second head on the first of them."""

    def __init__(self, returns):
        super().__init__()
        self.a, self.bn, self.drop = nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.Dropout(0.5)
        self.b, self.head, self.extra = nn.Conv2d(16, 16, 3), nn.Linear(16, 3), nn.Linear(16, 3)
        self.returns = returns

    def forward(self, x):
        h = torch.relu(self.bn(self.a(x)))
        y = self.head(self.drop(torch.relu(self.b(h)).mean((2, 3))))
        return self.returns(self, y, h)


def auxiliary(net, y, h):
    return (y, net.extra(h.mean((2, 3)))) if net.training else y


def needs_labels(net, y, h):
    if net.training:
        raise ValueError("where are the labels?")
    return y


def log_softmax(net, y, h):
    return y.log_softmax(1) * 2 if net.training else y


def noisy(net, y, h):
    return y + 0.1 * torch.randn_like(y) if net.training else y


def functional_dropout(net, y, h):
    return nn.functional.dropout(y, 0.5, net.training)


def plain(net, y, h):
    return y


def pair(net, y, h):
    return y, h


def nested(net, y, h):
    return {"out": [y], "features": {"h": h}, "loss": None}


def made(returns):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net(returns).eval()


@pytest.mark.parametrize(
    ("returns", "same"),
    [
        (auxiliary, False), (needs_labels, False), (log_softmax, False),
        (plain, True), (noisy, True), (functional_dropout, True), (pair, True), (nested, True),
    ],
)  # fmt: skip
def test_whether_a_network_computes_the_same(split, returns, same):
    module, before = made(returns), torch.get_rng_state()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    assert computes_the_same_in_training(module, torch.from_numpy(split.inputs[:2])) is same
    assert torch.equal(before, torch.get_rng_state())
    assert not module.training
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def test_only_torchs_layers_get_train_mode():
    module = made(auxiliary)
    set_train_mode(module, whole=False)
    assert not module.training
    assert module.bn.training
    assert module.drop.training
    module.bn.requires_grad_(False)
    set_train_mode(module, whole=False)
    assert not module.bn.training
    set_train_mode(module, whole=True)
    assert module.training


@pytest.mark.parametrize("returns", [auxiliary, needs_labels, pair, nested])
@pytest.mark.parametrize("criterion", ["magnitude_l2", "taylor"])
def test_it_is_cut_and_trained_like_the_plain_network(split, returns, criterion):
    """The extra head is no part of what is computed, and other outputs than the first one are not trained."""
    outputs = []
    for each in (returns, plain):
        dense = torch_artifact(made(each), InputSpec(SHAPE))
        context = StageContext(None, Cache(), train=split, teacher=dense, accelerator="cpu")
        prune, recover = PruneStage(threads=1), RecoverStage(threads=1)
        values = {"ratio": 0.5, "criterion": criterion, "protect": ("a.weight",)}
        prune.check(dense, {name: (value,) for name, value in values.items()}, context)
        small = prune.apply(dense, values, context)
        assert small.model.b.out_channels == 8
        recover.check(small, {"epochs": (1,)}, context)
        trained = recover.apply(small, {"epochs": 1, "cwd_weight": 0.0}, context)
        model = trained.model
        assert not torch.equal(model.b.weight, small.model.b.weight)
        model.returns = plain
        outputs.append(model(torch.from_numpy(split.inputs)))
    torch.testing.assert_close(*outputs)
