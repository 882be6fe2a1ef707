"""Scales of the channels that remain after a cut."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from spaces.errors import StageError
from spaces.pruning.criteria.testing import small_evidence, small_groups, small_network
from spaces.pruning.cutting import mask_tuning
from spaces.pruning.cutting.mask_tuning import fit_mask, tune_masks
from spaces.pruning.groups.columns import rows
from spaces.pruning.groups.cut import cut, kept_outputs
from spaces.pruning.groups.find import channel_groups
from spaces.pruning.groups.hooks import hooked

KEPT = {
    "conv1.weight": np.array([0, 2, 5]),
    "conv2.weight": np.array([1, 3, 4]),
    "fc1.weight": np.array([0, 1, 2, 6]),
}
CONSUMERS = ["conv2.weight", "fc1.weight", "fc2.weight"]


@pytest.fixture
def dense():
    return small_network()


@pytest.fixture
def small(dense):
    return cut(dense, small_groups(), KEPT).eval()


@pytest.fixture
def outputs(dense):
    return kept_outputs(dense, small_groups(), KEPT)


@pytest.fixture
def inputs():
    return small_evidence().inputs


def outputs_of(module, inputs):
    found = {}
    layers = {name: module.get_submodule(name.removesuffix(".weight")) for name in CONSUMERS}
    with hooked(layers, after=found.__setitem__), torch.no_grad():
        module(inputs)
    return found


def errors(dense, small, outputs, inputs):
    """Returns the mean squared error of every layer's output, from plain forward passes."""
    wanted, found = outputs_of(dense, inputs), outputs_of(small, inputs)
    kept = {name: torch.from_numpy(outputs.get(name, np.arange(4))) for name in CONSUMERS}
    return {n: float((wanted[n][:, kept[n]] - found[n]).double().square().mean()) for n in CONSUMERS}


def test_errors_are_those_of_the_network_and_never_rise(dense, small, outputs, inputs):
    tuned = tune_masks(dense, small, outputs, inputs)
    assert list(tuned) == CONSUMERS
    after = errors(dense, small, outputs, inputs)
    for name, (before_mse, after_mse) in tuned.items():
        assert after_mse < before_mse
        assert after_mse == pytest.approx(after[name], rel=1e-4)


def test_a_layer_is_tuned_on_the_outputs_of_the_tuned_layers_before_it(dense, small, outputs, inputs):
    untuned = errors(dense, small, outputs, inputs)
    first = copy.deepcopy(small)
    tuned = tune_masks(dense, small, outputs, inputs)
    assert tuned["conv2.weight"].before_mse == pytest.approx(untuned["conv2.weight"], rel=1e-4)
    first.conv2.weight.data = small.conv2.weight.data
    partly = errors(dense, first, outputs, inputs)
    assert tuned["fc1.weight"].before_mse == pytest.approx(partly["fc1.weight"], rel=1e-4)
    assert tuned["fc1.weight"].before_mse != pytest.approx(untuned["fc1.weight"], rel=1e-2)


def test_only_input_channels_are_scaled(dense, small, outputs, inputs):
    before = copy.deepcopy(small.state_dict())
    tune_masks(dense, small, outputs, inputs)
    for name, tensor in small.state_dict().items():
        if name not in CONSUMERS:
            assert torch.equal(tensor, before[name])
            continue
        scales = (tensor / before[name]).transpose(0, 1).flatten(1)  # (n_in, weights on it)
        assert torch.allclose(scales, scales[:, :1].expand_as(scales), rtol=1e-4)
        assert float((scales[:, 0] - 1).abs().max()) > 0.01


@settings(max_examples=20)
@given(st.integers(0, 1000), st.sampled_from(["conv", "strided", "linear"]), st.floats(1e-9, 1e3))
def test_scales_are_the_ridge_solution(seed, kind, ridge):
    torch.manual_seed(seed)
    shape = (6,) if kind == "linear" else (4, 5, 5)
    layer = {
        "conv": lambda: nn.Conv2d(4, 3, 3, padding=1),
        "strided": lambda: nn.Conv2d(4, 3, 2, stride=2, bias=False),
        "linear": lambda: nn.Linear(6, 3),
    }[kind]().double()
    x = torch.randn(10, *shape, dtype=torch.float64)
    with torch.no_grad():
        target = layer(x) + torch.randn_like(layer(x))
        parts = []
        for channel in range(shape[0]):
            alone = torch.zeros_like(x)
            alone[:, channel] = x[:, channel]
            zero = layer(torch.zeros_like(x))
            parts.append(rows(layer, layer(alone) - zero).reshape(-1))
        design = torch.stack(parts, dim=1)
        left = rows(layer, target - zero).reshape(-1)
        weight = ridge * float(design.square().sum(dim=0).mean())
        system = design.T @ design + weight * torch.eye(shape[0], dtype=torch.float64)
        wanted = torch.linalg.solve(system, design.T @ left + weight)
        mask, tuned = fit_mask(layer, x, target, ridge)
    assert torch.allclose(mask, wanted, rtol=1e-6, atol=1e-9)
    assert tuned.after_mse == pytest.approx(float((design @ mask - left).square().mean()), rel=1e-6)
    assert tuned.before_mse == pytest.approx(float((design.sum(dim=1) - left).square().mean()), rel=1e-6)
    assert tuned.after_mse <= tuned.before_mse


def test_a_large_ridge_leaves_the_weights_as_they_are(dense, small, outputs, inputs):
    before = copy.deepcopy(small.state_dict())
    tuned = tune_masks(dense, small, outputs, inputs, ridge=1e12)
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())
    for before_mse, after_mse in tuned.values():
        assert after_mse == pytest.approx(before_mse)


def test_a_removed_duplicate_channel_is_compensated():
    """Of two equal channels one is cut; the other is scaled to their sum."""
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 4, 3)).eval()
    dense[0].weight.data[2], dense[0].bias.data[2] = dense[0].weight.data[1], dense[0].bias.data[1]
    dense[2].weight.data[:, 2] = dense[2].weight.data[:, 1]
    small = copy.deepcopy(dense)
    small[0] = nn.Conv2d(2, 2, 1)
    small[0].load_state_dict({k: v[:2] for k, v in dense[0].state_dict().items()})
    small[2].weight = nn.Parameter(dense[2].weight.data[:, :2].clone())
    x = torch.randn(20, 2, 6, 6)
    tuned = tune_masks(dense, small, {}, x, ridge=1e-9)
    assert tuned["2.weight"].after_mse < 1e-9 * tuned["2.weight"].before_mse
    assert torch.allclose(small(x), dense(x), atol=1e-5)
    assert torch.allclose(small[2].weight[:, 1], 2 * dense[2].weight[:, 1], rtol=1e-4)


class Mixed(nn.Module):
    """Takes channels in a depthwise and in a pointwise convolution, and in a layer that runs twice."""

    def __init__(self, width):
        super().__init__()
        self.expand = nn.Conv2d(3, width, 1)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.grouped = nn.Conv2d(width, 8, 1, groups=2)
        self.project = nn.Conv2d(width, 5, 1)
        self.twice = nn.Conv2d(width, 4, 1)

    def forward(self, x):
        wide = functional.relu(self.expand(x))
        y = functional.relu(self.depthwise(wide))
        parts = self.project(y), self.twice(y), self.twice(wide), self.grouped(y)
        return torch.cat([p.mean(dim=(2, 3)) for p in parts], dim=1)


def test_depthwise_and_grouped_convolutions_and_shared_layers_are_left_alone():
    torch.manual_seed(0)
    dense, small = Mixed(6).eval(), Mixed(4).eval()
    before = copy.deepcopy(small.state_dict())
    tuned = tune_masks(dense, small, {}, torch.randn(8, 3, 5, 5))
    assert list(tuned) == ["project.weight"]
    changed = [name for name, tensor in small.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed == ["project.weight"]


def test_layers_with_other_rows_than_before_or_made_weights_are_left_alone():
    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.tokens, self.head = nn.Linear(5, 8), nn.Linear(6, 7), nn.Linear(8, 2)
            self.back = nn.utils.parametrizations.weight_norm(nn.Linear(7, 6))

        def forward(self, x):
            x = self.embed(x)
            return self.head((x + self.back(self.tokens(x.mT).relu()).mT).mean(1))

    torch.manual_seed(0)
    dense, inputs = Mixer().eval(), torch.randn(8, 6, 5)
    groups = channel_groups(dense, (6, 5))
    kept = {group.name: np.arange(4) for group in groups}
    assert set(kept) == {"embed.weight", "tokens.weight"}
    tuned = tune_masks(dense, cut(dense, groups, kept), kept_outputs(dense, groups, kept), inputs)
    assert list(tuned) == ["head.weight"]


def test_no_gradient_is_ever_computed(dense, small, outputs, inputs):
    enabled = []
    for module in (dense, small):
        module.conv2.register_forward_hook(lambda *_: enabled.append(torch.is_grad_enabled()))
    tune_masks(dense, small, outputs, inputs)
    assert enabled
    assert not any(enabled)
    for module in (dense, small):
        assert all(p.grad is None and p.requires_grad for p in module.parameters())
        assert not any(m._forward_pre_hooks for m in module.modules())


def test_the_dense_network_stays_as_it_is(dense, small, outputs, inputs):
    before = copy.deepcopy(dense.state_dict())
    tune_masks(dense, small, outputs, inputs)
    assert all(torch.equal(tensor, before[name]) for name, tensor in dense.state_dict().items())


@pytest.mark.parametrize("limit", ["MOST_BYTES", "MOST_COLUMN_BYTES"])
def test_little_memory_makes_no_difference(dense, small, outputs, inputs, limit, monkeypatch):
    other = copy.deepcopy(small)
    wanted = tune_masks(dense, small, outputs, inputs)
    monkeypatch.setattr(mask_tuning, limit, 1)
    found = tune_masks(dense, other, outputs, inputs)
    assert list(found) == list(wanted)
    for name, tensor in small.state_dict().items():
        assert torch.allclose(tensor, other.state_dict()[name], rtol=1e-5, atol=1e-7)


def test_a_layer_with_zero_inputs_is_not_tuned():
    layer = nn.Linear(3, 2)
    mask, (before_mse, after_mse) = fit_mask(layer, torch.zeros(4, 3), torch.ones(4, 2), 1e-3)
    assert mask.tolist() == [1.0] * 3
    assert before_mse == after_mse > 0


def test_without_a_cut_no_layer_is_tuned(dense, inputs):
    assert tune_masks(dense, small_network(), {}, inputs) == {}


def test_outputs_that_do_not_fit_are_an_error(dense, small, outputs, inputs):
    with pytest.raises(
        StageError, match=r"conv2\.weight has 3 of 5 outputs left, but kept_outputs lists none"
    ):
        tune_masks(dense, small, {"fc1.weight": outputs["fc1.weight"]}, inputs)
    with pytest.raises(StageError, match=r"conv2\.weight has 3 of 5 outputs left, but kept_outputs lists 2"):
        tune_masks(dense, small, outputs | {"conv2.weight": np.array([0, 1])}, inputs)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 3e38])
def test_values_that_are_not_finite_are_an_error(dense, small, outputs, inputs, value):
    inputs[3, 0, 0, 0] = value
    with pytest.raises(StageError, match=r"mask tuning: .*conv2\.weight are not finite"):
        tune_masks(dense, small, outputs, inputs)


@pytest.mark.parametrize("ridge", [0.0, -1.0, float("nan"), float("inf")])
def test_the_ridge_is_above_0(dense, small, outputs, inputs, ridge):
    with pytest.raises(StageError, match="ridge of mask tuning must be above 0"):
        tune_masks(dense, small, outputs, inputs, ridge)
