"""Channels that are cut with more than a trace shows: numbers of modules, others of the same width, and the scale of attention."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from spaces.pruning.budgets.arithmetic import CutArithmetic
from spaces.pruning.criteria.criterion import Evidence
from spaces.pruning.criteria.registry import Criteria
from spaces.pruning.groups.counts import layer_counts, total
from spaces.pruning.groups.cut import cut, silenced
from spaces.pruning.groups.find import analyse
from spaces.stages.artifact import InputSpec
from spaces.stages.torch_artifact import torch_artifact
from spaces.stages.torch_file import packed, unpacked

IMAGE, TOKENS = (3, 6, 6), (5, 6)


def unit(n, m, size=1):
    return nn.Sequential(nn.Conv2d(n, m, size, padding=size // 2, bias=False), nn.BatchNorm2d(m), nn.ReLU())


class Classifier(nn.Module):
    def __init__(self, block, n=16):
        super().__init__()
        self.stem, self.block, self.head = unit(3, n), block, nn.Linear(n, 4)

    def forward(self, x):
        return self.head(self.block(self.stem(x)).mean((2, 3)))


class Parts(nn.Module):
    """Res2Net: layers lie in containers, and the width of the parts is a number of the module around."""

    def __init__(self, n=16):
        super().__init__()
        self.width, self.last = n // 4, unit(n, n)
        self.convs = nn.ModuleList(unit(n // 4, n // 4, 3) for _ in range(3))

    def forward(self, x):
        parts = list(torch.split(x, self.width, 1))
        for at, layer in enumerate(self.convs):
            parts[at] = layer(parts[at] if at == 0 else parts[at] + parts[at - 1])
        return x + self.last(torch.cat(parts, 1))


class Partial(nn.Module):
    """SHViT: attention over the first channels only; one number is their width, and that of the values."""

    def __init__(self, n=16, part=6):
        super().__init__()
        self.part, self.qkv, self.proj = part, nn.Conv2d(part, 8 + part, 1), nn.Conv2d(n, n, 1)

    def forward(self, x):
        a, b = torch.split(x, [self.part, x.shape[1] - self.part], dim=1)
        q, k, v = self.qkv(a).flatten(2).split([4, 4, self.part], dim=1)
        a = v @ (q.transpose(-2, -1) @ k).softmax(-1).transpose(-2, -1)
        return x + self.proj(torch.cat([a.reshape(-1, self.part, *x.shape[2:]), b], 1))


class Shared(nn.Module):
    """Two parts of one layer's outputs go different ways, and one number is the width of both."""

    def __init__(self, n=16, width=5):
        super().__init__()
        self.width, self.both = width, nn.Conv2d(n, 2 * width + 3, 1)
        self.a, self.b, self.c = nn.Conv2d(width, n, 1), nn.Conv2d(width, n, 3, padding=1), nn.Conv2d(3, n, 1)

    def forward(self, x):
        a, b, c = self.both(x).split([self.width, self.width, 3], 1)
        return x + self.a(a.relu()) + self.b(b.tanh()) + self.c(c)


class Listed(nn.Module):
    """Widths in a tuple, and one that is the sum of two of them."""

    def __init__(self, widths=(6, 10)):
        super().__init__()
        self.widths, self.all, self.first = widths, sum(widths), nn.Conv2d(16, sum(widths), 1)
        self.a, self.b = nn.Conv2d(widths[0], 8, 1), nn.Conv2d(widths[1], 8, 1)

    def forward(self, x):
        a, b = self.first(x).view(len(x), self.all, *x.shape[2:]).split(self.widths, 1)
        return torch.cat([self.a(a), self.b(b)], 1)


class Selective(nn.Module):
    """SKNet: branches are stacked, summed for the gates, and weighted by a softmax over the branches."""

    def __init__(self, n=16, stack=torch.stack):
        super().__init__()
        self.width, self.stack = n, stack
        self.branches = nn.ModuleList([unit(n, n), unit(n, n, 3)])
        self.reduce, self.select = unit(n, 8), nn.Conv2d(8, 2 * n, 1)

    def forward(self, x):
        stacked = self.stack([branch(x) for branch in self.branches], 1)
        weights = self.select(self.reduce(stacked.sum(1).mean((2, 3), keepdim=True)))
        return (stacked * weights.view(x.shape[0], 2, self.width, 1, 1).softmax(1)).sum(1)


def stacked_by_cat(parts, dim):
    return torch.cat([part.unsqueeze(dim) for part in parts], dim)


class RelativeBias(nn.Module):
    """Attention whose heads have a learned bias for each pair of places."""

    def __init__(self, n=16):
        super().__init__()
        self.q, self.k, self.v, self.proj = (nn.Linear(n, n) for _ in range(4))
        self.table, self.heads, self.width = nn.Parameter(torch.randn(9, 2)), 2, n // 2
        self.register_buffer("places", torch.arange(5)[:, None] - torch.arange(5) + 4)

    def forward(self, x):
        q, k, v = (
            layer(x).view(len(x), -1, self.heads, self.width).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        bias = self.table[self.places.view(-1)].view(5, 5, 2).permute(2, 0, 1)
        y = (0.3 * q @ k.transpose(-2, -1) + bias).softmax(-1) @ v
        return x + self.proj(y.transpose(1, 2).flatten(2))


class Experts(nn.Module):
    """Experts as one parameter of three axes, of which none is cut but the hidden one."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(16, 4), nn.Parameter(torch.randn(4, 16, 8))

    def forward(self, x):
        y = torch.einsum("nd,edh->neh", x, self.experts).relu()
        return (y * self.gate(x).softmax(-1)[..., None]).sum(1)


class Transposed(nn.Module):
    """GPT-2's linear layer: its weight is (inputs, outputs), and a number of its own says how many outputs there are."""

    def __init__(self, n, m):
        super().__init__()
        self.n_outputs, self.weight, self.bias = (
            m,
            nn.Parameter(torch.randn(n, m)),
            nn.Parameter(torch.randn(m)),
        )

    def forward(self, x):
        y = torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight)
        return y.view(*x.shape[:-1], self.n_outputs)


class Joint(nn.Module):
    """GPT-2's attention, of such layers."""

    def __init__(self, n=16):
        super().__init__()
        self.qkv, self.proj = Transposed(n, 3 * n), Transposed(n, n)
        self.split_size, self.head_dim, self.scale = n, n // 2, (n // 2) ** -0.5

    def forward(self, x):
        parts = (
            y.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)
            for y in self.qkv(x).split(self.split_size, 2)
        )
        y = functional.scaled_dot_product_attention(*parts, scale=self.scale)
        return x + self.proj(y.transpose(1, 2).reshape(*x.shape[:2], -1))


class ScaledByWidth(nn.Module):
    """Attention whose scale is that of the width which its heads have at the time."""

    def __init__(self, n=16, joint=False):
        super().__init__()
        self.qk, self.v, self.joint = nn.Linear(n, 2 * n), nn.Linear(n, n), joint
        self.qkv, self.proj, self.head_dim, self.n_heads = nn.Linear(n, 3 * n), nn.Linear(n, n), n // 2, 2

    def forward(self, x):
        if self.joint:
            parts = (
                self.qkv(x)
                .view(*x.shape[:2], 3, self.n_heads, self.head_dim)
                .permute(2, 0, 3, 1, 4)
                .unbind(0)
            )
        else:
            heads = (*x.shape[:2], self.n_heads, -1)
            parts = [y.view(heads).transpose(1, 2) for y in (*self.qk(x).chunk(2, -1), self.v(x))]
        y = functional.scaled_dot_product_attention(*parts)
        return x + self.proj(y.transpose(1, 2).flatten(2))


class Positions(nn.Module):
    """DeBERTa: queries meet keys that a layer makes of a table of places, which no single parameter has the size of."""

    def __init__(self, n=16):
        super().__init__()
        self.q, self.k, self.v, self.place = (nn.Linear(n, n) for _ in range(4))
        self.table, self.proj = nn.Parameter(torch.randn(40, n)), nn.Linear(n, n)

    def forward(self, x):
        q, k, v, place = self.q(x), self.k(x), self.v(x), self.place(self.table)
        scores = q @ k.mT + (q @ place.T)[..., : x.shape[1]]
        return x + self.proj((scores / q.shape[-1] ** 0.5).softmax(-1) @ v)


class Heads(nn.Module):
    """Attention as in vision transformers: a head is as wide as the stream divided by the number of heads."""

    def __init__(self, n=16, joint=True, scale=None):
        super().__init__()
        self.joint, self.scale, self.qkv = joint, scale, nn.Linear(n, 3 * n if joint else n)
        self.k, self.v, self.proj = nn.Linear(n, n), nn.Linear(n, n), nn.Linear(n, n)

    def forward(self, x):
        b, n, c = x.shape
        if self.joint:
            parts = self.qkv(x).reshape(b, n, 3, 4, c // 4).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            parts = (y.reshape(b, n, 4, c // 4).transpose(1, 2) for y in (self.qkv(x), self.k(x), self.v(x)))
        y = functional.scaled_dot_product_attention(*parts, scale=self.scale)
        return x + self.proj(y.transpose(1, 2).reshape(b, n, c))


class Window(nn.Module):
    """Swin's windows of two by two places, with a bias for each pair of places and head."""

    def __init__(self, n=16):
        super().__init__()
        self.qkv, self.proj, self.table = (
            nn.Linear(n, 3 * n),
            nn.Linear(n, n),
            nn.Parameter(torch.randn(7, 2)),
        )
        self.register_buffer("places", torch.arange(4)[:, None] - torch.arange(4) + 3)

    def forward(self, x):
        n, c, h, w = x.shape
        y = x.permute(0, 2, 3, 1).view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        q, k, v = self.qkv(y).reshape(-1, 4, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) * (c // 2) ** -0.5
        scores = scores + self.table[self.places.view(-1)].view(4, 4, 2).permute(2, 0, 1)
        y = self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, 4, c))
        y = y.view(n, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return x + y.permute(0, 3, 1, 2)


class Plain(nn.Module):
    """x @ W + b, with parameters of its own."""

    def __init__(self, n=16):
        super().__init__()
        self.up, self.bias = nn.Parameter(torch.randn(n, 12)), nn.Parameter(torch.randn(12))
        self.down = nn.Parameter(torch.randn(n, 12))

    def forward(self, x):
        return x + (x @ self.up + self.bias).relu() @ self.down.T


def tokens(*blocks):
    return nn.Sequential(nn.Linear(6, 16), *blocks, nn.Linear(16, 3))


NETWORKS = {
    "parts": (lambda: Classifier(nn.Sequential(Parts(), Parts())), IMAGE, set()),
    "partial": (lambda: Classifier(nn.Sequential(Partial(), Partial())), IMAGE, {"block.0.qkv.weight", "block.1.qkv.weight"}),
    "shared": (lambda: Classifier(Shared()), IMAGE, {"block.both.weight"}),
    "listed": (lambda: Classifier(Listed()), IMAGE, set()),
    "selective": (lambda: Classifier(Selective()), IMAGE, set()),
    "selective by cat": (lambda: Classifier(Selective(stack=stacked_by_cat)), IMAGE, set()),
    "relative bias": (lambda: tokens(RelativeBias()), TOKENS, set()),
    "experts": (lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), Experts(), nn.Linear(8, 3)), (6,), {"2.gate.weight", "2.experts"}),
    "transposed": (lambda: tokens(Transposed(16, 12), nn.ReLU(), Transposed(12, 16)), TOKENS, set()),
    "joint": (lambda: tokens(Joint()), TOKENS, set()),
    "scaled": (lambda: tokens(ScaledByWidth()), TOKENS, set()),
    "scaled, joint": (lambda: tokens(ScaledByWidth(joint=True)), TOKENS, set()),
    "positions": (lambda: tokens(Positions()), TOKENS, {"1.table"}),
    "heads": (lambda: tokens(Heads(), Heads()), TOKENS, set()),
    "heads, fixed scale": (lambda: tokens(Heads(scale=0.3), Heads(scale=0.2)), TOKENS, set()),
    "heads, apart": (lambda: tokens(Heads(joint=False)), TOKENS, set()),
    "window": (lambda: Classifier(Window()), IMAGE, set()),
    "plain": (lambda: tokens(Plain()), TOKENS, set()),
}  # fmt: skip


def made(name):
    torch.manual_seed(0)
    build, shape, left = NETWORKS[name]
    module = torch_artifact(build(), InputSpec(shape)).model
    for tensor in (t for key, t in module.named_buffers() if key.endswith("running_var")):
        tensor.uniform_(0.5, 1.5)
    return module, shape, left


@pytest.mark.parametrize("name", NETWORKS)
def test_a_cut_network_equals_the_silenced_one_and_costs_what_was_computed(name):
    module, shape, expected = made(name)
    found, rng = analyse(module, shape), np.random.default_rng(0)
    kept = {
        g.name: np.sort(rng.permutation(g.n_channels)[: rng.integers(1, g.n_channels)]) for g in found.groups
    }
    smaller, x = cut(module, found.groups, kept), torch.randn(2, *shape)
    with torch.no_grad():
        torch.testing.assert_close(smaller(x), silenced(module, found.groups, kept)(x))
    counts = total(layer_counts(smaller, shape).values())
    n_kept = np.array([len(kept[g.name]) for g in found.groups])
    assert CutArithmetic(module, found.groups, shape).counts(n_kept) == counts
    dense = torch_artifact(module, InputSpec(shape))
    stored = torch_artifact(smaller, InputSpec(shape))
    assert unpacked(packed(stored, dense), dense).digest == stored.digest
    left = {layer for part in found.left_alone for layer in part.layers}
    assert left - {"head.weight", f"{len(list(module.children())) - 1}.weight"} == expected


@pytest.mark.parametrize("joint", [False, True])
def test_scores_of_attention_keep_their_scale(joint):
    """Only scores of the channels that are left change: cut in steps it is the same network."""
    torch.manual_seed(0)
    module = torch_artifact(tokens(ScaledByWidth(joint=joint)), InputSpec(TOKENS)).model
    name = "1.qkv.weight" if joint else "1.qk.weight"
    group = next(g for g in analyse(module, TOKENS).groups if g.name == name)
    assert (group.rescaled, group.n_channels) == (True, 8)
    at_once = cut(module, [group], {name: np.array([1, 4])})
    half = cut(module, [group], {name: np.array([1, 2, 4, 5])})
    again = next(g for g in analyse(half, TOKENS).groups if g.name == name)
    torch.testing.assert_close(
        cut(half, [again], {name: np.array([0, 2])}).state_dict(), at_once.state_dict()
    )


def test_groups_of_one_width_are_one():
    module, shape, _ = made("partial")
    first = analyse(module, shape).groups[0]
    assert first.joined == ("block.0.qkv.weight#2", "block.1.qkv.weight#2")
    assert {"stem.0.weight", "block.0.qkv.weight", "block.1.qkv.weight"} <= set(first.layers)
    assert {(size.module, size.per_channel) for size in first.sizes} == {("block.0", 1), ("block.1", 1)}
    smaller = cut(module, [first], {first.name: np.array([0, 3])})
    assert (smaller.block[0].part, smaller.block[1].qkv.weight.shape[:2]) == (2, (10, 2))


@pytest.mark.parametrize(("name", "power"), [("heads", 0.25), ("heads, fixed scale", 0.0)])
def test_heads_are_joined_with_their_stream(name, power):
    """A channel is one of every head, and as many of the stream as there are heads."""
    module, shape, _ = made(name)
    (group,) = analyse(module, shape).groups
    assert (group.n_channels, group.joined) == (4, ("1.qkv.weight", "2.qkv.weight"))
    rows = {(s.name, s.axis): s.rows[1].tolist() for s in group.slices}
    assert rows["0.weight", 0] == [4, 5, 6, 7]
    assert rows["1.qkv.weight", 0] == [1, 5, 9, 13, 17, 21, 25, 29, 33, 37, 41, 45]
    assert {s.power for s in group.slices if s.name == "1.qkv.weight" and s.axis == 0} == {power}


def test_items_of_tuples_and_sums_shrink():
    module, shape, _ = made("listed")
    groups = [g for g in analyse(module, shape).groups if g.layers == ("block.first.weight",)]
    smaller = cut(module, groups, {g.name: np.arange(2) for g in groups}).block
    assert (smaller.widths, smaller.all, len(smaller.first.weight)) == ((2, 2), 4, 4)
    assert (module.block.widths, module.block.all) == ((6, 10), 16)


def test_a_joined_group_has_one_slice_for_each_axis():
    module, shape, _ = made("shared")
    group = next(g for g in analyse(module, shape).groups if g.joined)
    assert (group.name, group.joined, group.layers) == (
        "block.both.weight", ("block.both.weight#2",), ("block.both.weight",)
    )  # fmt: skip
    rows = {(s.name, s.axis): s.rows.tolist() for s in group.slices}
    assert len(rows) == len(group.slices)
    assert rows["block.both.weight", 0] == [[i, i + 5] for i in range(5)]


@pytest.mark.parametrize("criterion", ["magnitude_l1", "magnitude_l2", "fpgm", "taylor", "disturbed_taylor"])
def test_criteria_judge_weights_of_any_orientation(criterion):
    """The same network with weights (inputs, outputs) gets the same scores."""
    module, shape, _ = made("transposed")
    twin = tokens(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 16)).requires_grad_(False)
    state = {key: t.T if key in ("1.weight", "3.weight") else t for key, t in module.state_dict().items()}
    twin.load_state_dict(state)
    scores = []
    for network in (module, twin):
        head = nn.Sequential(network, nn.Flatten())
        x, labels = torch.randn(8, *shape, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3
        groups = analyse(head, shape).groups
        evidence = Evidence(head, groups, x, labels, torch.Generator().manual_seed(0))
        scores.append(Criteria()[criterion].scores(evidence))
    assert scores[0].keys() == scores[1].keys() >= {"0.1.weight"}
    for name, values in scores[0].items():
        torch.testing.assert_close(values, scores[1][name], rtol=1e-5, atol=1e-6)
