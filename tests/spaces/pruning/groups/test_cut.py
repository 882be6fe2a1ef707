"""Cut networks equal masked ones and have the computed cost, over random networks and random cuts."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from spaces.errors import StageError
from spaces.models.zoo.cifar_resnet import CifarResNet
from spaces.pruning.budgets.arithmetic import CutArithmetic
from spaces.pruning.budgets.budget import Limits, Ranking, within
from spaces.pruning.budgets.target import TOLERANCE, Budget
from spaces.pruning.groups.counts import layer_counts, total
from spaces.pruning.groups.cut import cut, kept_outputs, silenced, widths
from spaces.pruning.groups.find import channel_groups
from spaces.stages.artifact import InputSpec
from spaces.stages.torch_artifact import torch_artifact
from spaces.stages.torch_file import packed, unpacked

SHAPE = (3, 8, 8)
BLOCKS = ("plain", "residual", "depthwise", "grouped", "transposed", "concat", "pool", "gate")


class RandomNetwork(nn.Module):
    """A stem, blocks of several kinds, and a head with or without a hidden layer behind a flatten."""

    def __init__(self, seed, kinds, flatten):
        super().__init__()
        rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        self.kinds, self.flatten = kinds, flatten
        self.stem, n, size = _unit(3, int(rng.integers(2, 9))), 0, 8
        n = self.stem[0].out_channels
        self.blocks = nn.ModuleList()
        for kind in kinds:
            block, n, size = _block(kind, n, size, rng)
            self.blocks.append(block)
        n_features = n * size * size if flatten else n
        hidden = int(rng.integers(3, 9))
        self.head = nn.Sequential(nn.Linear(n_features, hidden), nn.ReLU(), nn.Linear(hidden, 4))
        for part in self.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                for tensor, low in (
                    (part.running_mean, -0.5),
                    (part.running_var, 0.5),
                    (part.bias.data, -0.5),
                ):
                    tensor.uniform_(low, low + 1)
        self.eval()

    def forward(self, x):
        x = self.stem(x)
        for kind, block in zip(self.kinds, self.blocks, strict=True):
            if kind == "concat":
                x = torch.cat([x, block(x)], 1)
            elif kind == "residual":
                x = torch.relu(x + block(x))
            elif kind == "gate":
                x = x * torch.sigmoid(block(x.mean((2, 3), keepdim=True)))
            else:
                x = block(x)
        return self.head(x.flatten(1) if self.flatten else x.mean((2, 3)))


def _unit(n_in, n_out, **more):
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, padding=1, **more), nn.BatchNorm2d(n_out), nn.ReLU())


def _block(kind, n, size, rng):
    m = int(rng.integers(2, 9))
    if kind == "residual":
        return nn.Sequential(_unit(n, m), nn.Conv2d(m, n, 1)), n, size
    if kind == "depthwise":
        return nn.Sequential(_unit(n, 2 * n, groups=n), nn.Conv2d(2 * n, m, 1)), m, size
    if kind == "grouped":
        return nn.Sequential(_unit(n, 4), _unit(4, 6, groups=2)), 6, size
    if kind == "transposed":
        return nn.Sequential(nn.ConvTranspose2d(n, m, 2, stride=2), nn.PReLU(m), nn.AvgPool2d(2)), m, size
    if kind == "concat":
        return _unit(n, m), n + m, size
    if kind == "pool" and size > 2:
        return nn.Sequential(_unit(n, m, bias=False), nn.MaxPool2d(2)), m, size // 2
    if kind == "gate":
        return nn.Sequential(nn.Conv2d(n, m, 1), nn.ReLU(), nn.Conv2d(m, n, 1)), n, size
    return _unit(n, m), m, size


networks = st.builds(
    RandomNetwork, st.integers(0, 2**16), st.lists(st.sampled_from(BLOCKS), max_size=4), st.booleans()
)


def random_cut(groups, seed):
    rng = np.random.default_rng(seed)
    return {
        g.name: np.sort(rng.permutation(g.n_channels)[: rng.integers(1, g.n_channels + 1)])
        for g in groups
        if rng.random() < 0.8
    }


def outputs(module, n=3):
    x = torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return module(x)


@settings(max_examples=40)
@given(networks, st.integers(0, 2**16))
def test_a_cut_network_equals_the_masked_one_and_has_the_computed_cost(network, seed):
    groups = channel_groups(network, SHAPE)
    assert {layer for g in groups for layer in g.layers} == widths(network).keys() - {"head.2.weight"}
    kept, before = random_cut(groups, seed), copy.deepcopy(network.state_dict())
    smaller = cut(network, groups, kept)
    wanted = outputs(silenced(network, groups, kept))
    assert torch.allclose(outputs(smaller), wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    n_kept = np.array([len(kept.get(g.name, range(g.n_channels))) for g in groups])
    counted = total(layer_counts(smaller, SHAPE).values())
    assert CutArithmetic(network, groups, SHAPE).counts(n_kept) == counted
    assert counted.parameters == sum(p.numel() for p in smaller.parameters())
    assert counted.weight_bytes == 4 * counted.parameters
    left = kept_outputs(network, groups, kept)
    now = widths(smaller)
    assert {name: len(rows) for name, rows in left.items()} == {
        name: now[name] // (2 if "ConvTranspose" in name else 1) for name in left
    }


@settings(max_examples=40)
@given(
    networks,
    st.integers(0, 2**16),
    st.floats(0.05, 1.0),
    st.sampled_from(["macs", "weight_bytes"]),
    st.sampled_from([1, 1, 2, 3]),
    st.integers(1, 3),
)
def test_a_budget_is_met_or_refused(network, seed, keep, of, round_to, min_channels):
    groups = channel_groups(network, SHAPE)
    arithmetic, rng = CutArithmetic(network, groups, SHAPE), np.random.default_rng(seed)
    dense = getattr(total(layer_counts(network, SHAPE).values()), of)
    budget = Budget(keep, dense, getattr(arithmetic, of), of)
    ranking = Ranking(groups, tuple(rng.random(g.n_channels) for g in groups))
    limits = Limits(min_channels, round_to)
    possible = any_cut_meets(budget, [limits.allowed(g) for g in groups])
    if not possible:
        with pytest.raises(StageError, match=f"prune.keep={keep:g} cannot be met"):
            within(budget, ranking, arithmetic.n_channels, limits)
        return
    n_kept = within(budget, ranking, arithmetic.n_channels, limits)
    assert all(n in limits.allowed(g) for n, g in zip(n_kept.tolist(), groups, strict=True))
    smaller = cut(network, groups, ranking.kept(n_kept))
    achieved = getattr(total(layer_counts(smaller, SHAPE).values()), of) / dense
    assert abs(achieved - keep) <= TOLERANCE
    assert min(widths(smaller).values()) >= 1


def any_cut_meets(budget, allowed, most=50_000):
    """Tries every cut, or `most` random ones if there are more."""
    if np.prod([len(numbers) for numbers in allowed], dtype=float) <= most:
        every = np.stack(np.meshgrid(*allowed, indexing="ij"), axis=-1).reshape(-1, len(allowed))
    else:
        rng = np.random.default_rng(0)
        every = np.stack([rng.choice(numbers, most) for numbers in allowed], axis=-1)
    return bool((np.abs(budget.shares(every) - budget.keep) <= TOLERANCE).any())


def test_an_option_a_shortcut_is_cut_with_its_residual_stream():
    torch.manual_seed(0)
    network = CifarResNet(8).eval()
    groups = {g.name: g for g in channel_groups(network, (3, 32, 32))}
    kept = {
        "conv1.weight": np.arange(4, 16),
        "layer2.0.conv2.weight": np.array([0, 1, 2, *range(8, 16)]),
        "layer3.0.conv2.weight": np.arange(20),
    }
    smaller = cut(network, tuple(groups.values()), kept)
    shortcut = smaller.layer2[0].shortcut
    assert (shortcut.before, shortcut.after) == (3, 8)
    assert widths(smaller)["layer2.0.conv2.weight"] == 3 + 12 + 8
    assert (smaller.layer3[0].shortcut.before, smaller.layer3[0].shortcut.after) == (16, 4)
    assert (network.layer2[0].shortcut.before, network.layer2[0].shortcut.after) == (8, 8)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        wanted = silenced(network, tuple(groups.values()), kept)(x)
        assert torch.allclose(smaller(x), wanted, atol=1e-5)


def test_a_cut_of_a_cut():
    torch.manual_seed(0)
    network = CifarResNet(8).eval()
    first = cut(network, channel_groups(network, (3, 32, 32)), {"conv1.weight": np.arange(8)})
    groups = channel_groups(first, (3, 32, 32))
    assert {g.name: g.n_channels for g in groups}["conv1.weight"] == 8
    second = cut(first, groups, {"conv1.weight": np.arange(2, 6)})
    at_once = cut(network, channel_groups(network, (3, 32, 32)), {"conv1.weight": np.arange(2, 6)})
    assert (
        torch_artifact(second, InputSpec((3, 32, 32))).digest
        == torch_artifact(at_once, InputSpec((3, 32, 32))).digest
    )


def test_a_cut_network_can_be_stored():
    torch.manual_seed(0)
    spec = InputSpec((3, 32, 32))
    dense = torch_artifact(CifarResNet(8), spec)
    groups = channel_groups(dense.model, spec.shape)
    made = torch_artifact(cut(dense.model, groups, random_cut(groups, 3)), spec)
    data = packed(made, dense)
    assert data is not None
    assert unpacked(data, dense).digest == made.digest


def test_modules_have_their_new_sizes_as_attributes():
    network = RandomNetwork(0, ["depthwise", "grouped", "transposed"], flatten=True)
    groups = channel_groups(network, SHAPE)
    smaller = cut(network, groups, {g.name: np.arange(1, g.n_channels) for g in groups if g.n_channels > 1})
    for part in smaller.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.BatchNorm2d | nn.PReLU):
            twin = eval(repr(part), {type(part).__name__: type(part)})
            shapes = {name: tensor.shape for name, tensor in part.state_dict().items()}
            assert {name: tensor.shape for name, tensor in twin.state_dict().items()} == shapes


def test_frozen_parameters_stay_frozen():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)).requires_grad_(False)
    smaller = cut(network, channel_groups(network, SHAPE), {"0.weight": np.array([1])})
    assert not any(p.requires_grad for p in smaller.parameters())


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ([], r"at least one output channel of 0\.weight"),
        ([4], r"has the channels 0 to 3"),
        ([-1], "channels 0 to 3"),
    ],
)
def test_kept_channels_that_are_none_or_out_of_range_raise(kept, message):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    with pytest.raises(StageError, match=message):
        cut(network, channel_groups(network, SHAPE), {"0.weight": np.array(kept, np.int64)})


def test_a_wrong_cut_would_be_detected():
    """The comparison with the masked network detects a single wrong channel."""
    network = RandomNetwork(1, ["plain"], flatten=False)
    groups = channel_groups(network, SHAPE)
    n = groups[0].n_channels
    right, wrong = ({groups[0].name: np.delete(np.arange(n), at)} for at in (0, 1))
    got, wanted = outputs(cut(network, groups, right)), outputs(silenced(network, groups, wrong))
    assert not torch.allclose(got, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
    assert functional.mse_loss(got, wanted) > 0
