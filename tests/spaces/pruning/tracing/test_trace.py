"""Usual networks: what is cut, by how much it costs less, and what it computes then."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from spaces.pruning.budgets.arithmetic import CutArithmetic
from spaces.pruning.criteria.criterion import Evidence
from spaces.pruning.criteria.registry import Criteria
from spaces.pruning.groups.counts import layer_counts, total
from spaces.pruning.groups.cut import cut, silenced
from spaces.pruning.groups.find import analyse, channel_groups
from spaces.pruning.tracing.decomposed import decomposed
from spaces.stages.artifact import InputSpec
from spaces.stages.torch_artifact import torch_artifact
from spaces.stages.torch_file import packed, unpacked


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


class ChannelsFirstNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Heads as in vision transformers: their number and width are fixed."""

    def __init__(self, n=16, n_heads=4):
        super().__init__()
        self.norm, self.n_heads = nn.LayerNorm(n), n_heads
        self.qkv, self.proj = nn.Linear(n, 3 * n), nn.Linear(n, n)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = (
            self.qkv(self.norm(x)).reshape(b, n, 3, self.n_heads, c // self.n_heads).permute(2, 0, 3, 1, 4)
        )
        y = functional.scaled_dot_product_attention(q, k, v)
        return x + self.proj(y.transpose(1, 2).reshape(b, n, c))


class SizedAttention(nn.Module):
    """Heads whose width is an attribute."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(20, 3 * 16), nn.Linear(16, 20)
        self.n_heads, self.head_dim, self.attn_dim, self.scale = 2, 8, 16, 8**-0.5

    def forward(self, x):
        shape = (*x.shape[:2], 3, self.n_heads, self.head_dim)
        q, k, v = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4)
        y = (self.scale * q @ k.mT).softmax(-1) @ v
        return x + self.proj(y.transpose(1, 2).reshape(*x.shape[:2], self.attn_dim))


class Split(nn.Module):
    """A block of Res2Net: the width of its parts is an attribute."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.width = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 8, 1), 4
        self.a, self.b = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

    def forward(self, x):
        a, b, c = torch.split(self.first(x).relu(), self.width, 1)
        a = self.a(a)
        return x + self.last(torch.cat([a, self.b(a + b), c], 1))


class NonLocal(nn.Module):
    def __init__(self):
        super().__init__()
        self.theta, self.phi, self.g = (nn.Conv2d(8, 6, 1) for _ in range(3))
        self.out = nn.Conv2d(6, 8, 1)

    def forward(self, x):
        theta, phi, g = (layer(x).flatten(2) for layer in (self.theta, self.phi, self.g))
        weights = torch.einsum("bci,bcj->bij", theta, phi).softmax(-1)
        return x + self.out((g @ weights.mT).unflatten(2, x.shape[2:]))


class Functional(nn.Module):
    """Products by functions, of parameters of its own."""

    def __init__(self):
        super().__init__()
        self.w, self.b = nn.Parameter(torch.randn(12, 8)), nn.Parameter(torch.randn(12))
        self.k, self.m = nn.Parameter(torch.randn(10, 12, 1, 1)), nn.Parameter(torch.randn(10, 8))

    def forward(self, x):
        x = functional.linear(x.permute(0, 2, 3, 1), self.w, self.b).relu().permute(0, 3, 1, 2)
        x = functional.conv2d(x, self.k)
        return torch.einsum("bchw,cd->bdhw", x, self.m)


class Mixing(nn.Module):
    """A block of MLP-Mixer over 16 tokens of 8 channels."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Sequential(nn.Linear(16, 12), nn.GELU(), nn.Linear(12, 16))
        self.channels = Residual(nn.LayerNorm(8), nn.Linear(8, 20), nn.GELU(), nn.Linear(20, 8))

    def forward(self, x):
        return self.channels(x + self.tokens(x.transpose(1, 2)).transpose(1, 2))


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.first, self.second = nn.Conv1d(3, 8, 3), nn.Conv1d(8, 6, 3)
        self.rnn, self.hidden, self.head = kind(6, 5, batch_first=True), nn.Linear(5, 7), nn.Linear(7, 2)

    def forward(self, x):
        x = self.second(self.first(x).relu()).relu()
        return self.head(self.hidden(self.rnn(x.transpose(1, 2))[0][:, -1]).relu())


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.deep = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, 2, 1)
        self.up, self.join, self.head = (
            nn.ConvTranspose2d(12, 8, 2, 2),
            nn.Conv2d(16, 6, 3, padding=1),
            nn.Conv2d(6, 2, 1),
        )

    def forward(self, x):
        x = self.down(x).relu()
        return self.head(self.join(torch.cat([x, self.up(self.deep(x).relu())], 1)).relu())


def tail(n):
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n, 4)


def group_norms():
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.GroupNorm(1, 12), nn.ReLU()),
        *(nn.Conv2d(12, 6, 1), nn.GroupNorm(6, 6), nn.Conv2d(6, 9, 1), nn.InstanceNorm2d(9, affine=True), *tail(9)),
    )  # fmt: skip


def convnext():
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 4, 4), ChannelsFirstNorm(8)),
        Residual(
            *(nn.Conv2d(8, 8, 3, padding=1, groups=8), Function(lambda x: x.permute(0, 2, 3, 1)), nn.LayerNorm(8)),
            *(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8), Function(lambda x: x.permute(0, 3, 1, 2))),
        ),
        *tail(8),
    )  # fmt: skip


def reused():
    layer = nn.Conv2d(8, 8, 3, padding=1)
    return nn.Sequential(nn.Conv2d(3, 8, 3), layer, nn.ReLU(), layer, *tail(8))


def weight_norms(norm=nn.utils.parametrizations.weight_norm, dim=0):
    return nn.Sequential(
        *(norm(nn.Conv2d(3, 8, 3), dim=dim), nn.ReLU(), norm(nn.ConvTranspose2d(8, 7, 3), dim=dim), nn.ReLU()),
        *(norm(nn.Conv2d(7, 6, 3), dim=dim), nn.Flatten(), norm(nn.Linear(6 * 8 * 8, 5), dim=dim), nn.Linear(5, 4)),
    ).requires_grad_(False)  # fmt: skip


def rearranged():
    """PixelShuffle, grouped convolution, shuffled channels, chunks and a gated linear unit."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.PixelShuffle(2), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1, groups=2)),
        *(nn.ChannelShuffle(2), nn.Conv2d(8, 12, 3, groups=2), nn.ReLU(), nn.Conv2d(12, 8, 1)),
        Function(lambda x: torch.cat([x.chunk(2, 1)[1], x.chunk(2, 1)[0].relu()], 1)),
        *(nn.Conv2d(8, 8, 1), nn.GLU(1), *tail(4)),
    )  # fmt: skip


def transformer(**more):
    encoder = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, **more)
    return nn.Sequential(nn.Linear(5, 16), encoder, Function(lambda x: x.mean(1)), nn.Linear(16, 3))


IMAGE, TOKENS, SEQUENCE = (3, 12, 12), (6, 5), (3, 16)
NETWORKS = {
    "group norms": (group_norms, IMAGE),
    "convnext": (convnext, (3, 16, 16)),
    "reused": (reused, IMAGE),
    "weight norms": (weight_norms, (3, 10, 10)),
    "rearranged": (rearranged, IMAGE),
    "u-net": (UNet, IMAGE),
    "lstm": (Recurrent, SEQUENCE),
    "gru": (lambda: Recurrent(nn.GRU), SEQUENCE),
    "non-local": (lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), NonLocal(), *tail(8)), (3, 4, 4)),
    "functional": (lambda: nn.Sequential(nn.Conv2d(3, 8, 1), Functional(), nn.Conv2d(8, 4, 1), *tail(4)), (3, 4, 4)),
    "transformer": (transformer, TOKENS),
    "pre-norm": (lambda: transformer(activation="gelu", norm_first=True), TOKENS),
    "sized attention": (
        lambda: nn.Sequential(nn.Linear(5, 20), SizedAttention(), Function(lambda x: x.mean(1)), nn.Linear(20, 3)),
        TOKENS,
    ),
    "split": (lambda: nn.Sequential(nn.Conv2d(3, 8, 1), Split(), *tail(8)), (3, 6, 6)),
    "attention": (
        lambda: nn.Sequential(
            *(nn.Linear(5, 16), Attention(), Residual(nn.LayerNorm(16), nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))),
            *(Function(lambda x: x.mean(1)), nn.Linear(16, 3)),
        ),
        TOKENS,
    ),
    "mixer": (
        lambda: nn.Sequential(
            *(nn.Conv2d(3, 8, 4, 4), nn.Flatten(2), Function(lambda x: x.mT), Mixing(), Mixing()),
            *(Function(lambda x: x.mean(1)), nn.Linear(8, 3)),
        ),
        (3, 16, 16),
    ),
}  # fmt: skip


def made(name):
    torch.manual_seed(0)
    build, shape = NETWORKS[name]
    return build().eval(), shape


def counted_by_torch(module, shape):
    with decomposed(module), FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, *shape))
    return counter.get_total_flops() // 2


def random_cut(groups, seed):
    rng = np.random.default_rng(seed)
    return {
        g.name: np.sort(rng.permutation(g.n_channels)[: rng.integers(2, g.n_channels + 1)]) for g in groups
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_multiply_accumulates_agree_with_torch_before_and_after_a_cut(name):
    module, shape = made(name)
    groups = channel_groups(module, shape)
    arithmetic = CutArithmetic(module, groups, shape)
    assert int(arithmetic.macs(arithmetic.n_channels)) == counted_by_torch(module, shape)
    for seed in range(3):
        kept = random_cut(groups, seed)
        smaller = cut(module, groups, kept)
        counts = total(layer_counts(smaller, shape).values())
        assert counts.macs == counted_by_torch(smaller, shape)
        assert arithmetic.counts(np.array([len(kept[g.name]) for g in groups])) == counts


EVERYTHING_BUT = {
    "group norms": {"12.weight"},
    "convnext": {"5.weight"},
    "reused": {"6.weight"},
    "weight norms": {"7.weight"},
    "rearranged": {"14.weight"},
    "u-net": {"head.weight"},
    "lstm": {"head.weight"},
    "gru": {"head.weight"},
    "non-local": {"5.weight"},
    "functional": {"5.weight"},
    "transformer": {"0.weight", "1.self_attn.out_proj.weight", "1.linear2.weight", "3.weight"},
    "pre-norm": {"0.weight", "1.self_attn.out_proj.weight", "1.linear2.weight", "3.weight"},
    "attention": {"4.weight"},
    "sized attention": {"3.weight"},
    "split": {"4.weight"},
    "mixer": {"3.tokens.2.weight", "4.tokens.2.weight", "6.weight"},
}


OTHERS = {
    "transformer": {"1.self_attn.in_proj_weight"},
    "pre-norm": {"1.self_attn.in_proj_weight"},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_all_layers_are_cut_or_named(name):
    module, shape = made(name)
    found = analyse(module, shape)
    assert {layer for left in found.left_alone for layer in left.layers} == EVERYTHING_BUT[name] | OTHERS.get(
        name, set()
    )
    layers = {
        f"{n}.weight"
        for n, part in module.named_modules()
        if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Linear)
    }
    assert layers - {layer for group in found.groups for layer in group.layers} == EVERYTHING_BUT[name]


def test_reasons_name_the_layer():
    def reasons(name):
        return {layer: left.reason for left in analyse(*made(name)).left_alone for layer in left.layers}

    assert (
        reasons("transformer")["1.linear2.weight"]
        == "the channels pass through 1.self_attn, and there is no rule to cut modules of type MultiheadAttention"
    )
    assert "combined with values" in reasons("mixer")["3.tokens.2.weight"]


@pytest.mark.parametrize(
    "name",
    ["reused", "weight norms", "rearranged", "u-net", "lstm", "gru", "non-local", "split", "functional"],
)
def test_a_cut_network_equals_the_silenced_one(name):
    module, shape = made(name)
    groups, x = channel_groups(module, shape), torch.randn(2, *shape)
    kept = random_cut(groups, 0)
    with torch.no_grad():
        torch.testing.assert_close(cut(module, groups, kept)(x), silenced(module, groups, kept)(x))


@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_what_is_left_of_a_normed_weight_keeps_its_values(norm, dim):
    module = torch_artifact(weight_norms(norm, dim), InputSpec((3, 10, 10))).model
    groups = channel_groups(module, (3, 10, 10))
    kept = {group.name: np.arange(3) for group in groups}
    smaller, x = cut(module, groups, kept), torch.randn(2, 3, 10, 10)
    with torch.no_grad():
        smaller(x)
        torch.testing.assert_close(smaller[2].weight, module[2].weight[:3, :3])
        torch.testing.assert_close(smaller(x), silenced(module, groups, kept)(x))


@pytest.mark.parametrize("criterion", ["magnitude_l1", "magnitude_l2", "fpgm"])
def test_criteria_judge_the_weights_that_weight_norm_makes(criterion):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    normed = nn.utils.parametrizations.weight_norm(copy.deepcopy(plain[0]))
    normed.parametrizations.weight.original1.data *= torch.linspace(1, 9, 8)[:, None]  # without any effect
    made = nn.Sequential(normed, *plain[1:])
    scores = []
    for module in (plain, made):
        evidence = Evidence(module, channel_groups(module, (5,)), torch.zeros(0, 5), None, torch.Generator())
        scores.append(Criteria({})[criterion].scores(evidence)["0.weight"])
    torch.testing.assert_close(*scores, rtol=1e-5, atol=1e-6)


def test_norms_shrink_with_their_channels():
    module, shape = made("group norms")
    groups = channel_groups(module, shape)
    smaller = cut(module, groups, {g.name: np.arange(2) for g in groups})
    norms = [part for part in smaller if isinstance(part, nn.GroupNorm)]
    assert [(n.num_groups, n.num_channels, len(n.weight)) for n in norms] == [(2, 4, 4), (1, 2, 2), (2, 2, 2)]
    module, shape = made("convnext")
    groups = channel_groups(module, shape)
    smaller = cut(module, groups, {g.name: np.arange(5) for g in groups})
    assert (smaller[1].normalized_shape, smaller[2][2].normalized_shape) == ((5,), (5,))


def test_wrong_wiring_behind_a_norm_is_found():
    module = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.GroupNorm(1, 8), Function(lambda x: x + x.flip(1)), *tail(8)
    )
    reasons = {layer: left.reason for left in analyse(module, (3, 4, 4)).left_alone for layer in left.layers}
    assert "outputs are wrong" in reasons["0.weight"]


def test_numbers_of_a_module_shrink_with_its_channels():
    module, shape = made("sized attention")
    groups = channel_groups(module, shape)
    smaller = cut(module, groups, {"1.qkv.weight": [0, 1, 5]})[1]
    assert (smaller.n_heads, smaller.head_dim, smaller.attn_dim, smaller.scale) == (2, 3, 6, 8**-0.5)
    assert (tuple(smaller.qkv.weight.shape), tuple(smaller.proj.weight.shape)) == ((18, 20), (20, 6))
    assert module[1].head_dim == 8


@pytest.mark.parametrize("name", ["sized attention", "weight norms", "group norms", "convnext"])
def test_a_cut_network_can_be_cached(name):
    module, shape = made(name)
    groups, dense = channel_groups(module, shape), torch_artifact(module, InputSpec(shape))
    smaller = torch_artifact(cut(module, groups, random_cut(groups, 1)), InputSpec(shape))
    data = packed(smaller, dense)
    assert data is not None
    assert unpacked(data, dense).digest == smaller.digest


def test_chunks_that_go_different_ways_lose_as_much():
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 5, 1), nn.Conv2d(4, 5, 1)

        def forward(self, x):
            a, b = self.conv(x).chunk(2, 1)
            return torch.cat([self.a(a), self.b(b)], 1)

    (group,) = channel_groups(Halves(), (3, 4, 4))
    assert group.slices[0].rows.tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_fused_kernels_are_restored():
    before = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    analyse(Recurrent().eval(), (3, 16))
    assert (torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled) == before
