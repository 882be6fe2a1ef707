import copy

import numpy as np
import pytest
import torch
from torch import nn

from spaces.errors import StageError
from spaces.models.zoo.digits_cnn import DigitsCNN
from spaces.pruning.criteria.testing import N_EXAMPLES
from spaces.pruning.groups.cut import cut
from spaces.pruning.sparsity.bottleneck_masks import BottleneckMasks
from spaces.pruning.sparsity.mask_places import mask_places
from spaces.pruning.sparsity.masks import Masks
from spaces.pruning.sparsity.sparsifier import Aim
from spaces.pruning.sparsity.testing import SHAPE, small_subject
from spaces.recovery.training.batch import Batch

INPUTS = torch.randn(N_EXAMPLES, *SHAPE, generator=torch.Generator().manual_seed(5))
LABELS = torch.arange(N_EXAMPLES) % 4


@pytest.fixture
def subject():
    return small_subject()


class PreActivation(nn.Module):
    """A residual stream that a BatchNorm and a linear layer read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 6, 1, bias=False)
        self.outer = nn.Conv2d(6, 8, 1)
        self.linear = nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.outer(torch.relu(self.inner(torch.relu(self.bn(x)))))
        return self.linear(torch.relu(x).mean((2, 3)))


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 8, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.spread = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.bn1(self.expand(x)))
        return self.linear(torch.relu(self.bn2(self.spread(x))).mean((2, 3)))


def with_statistics(module):
    generator = torch.Generator().manual_seed(2)
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(
                torch.rand(buffer.shape, generator=generator) + (0.5 if name.endswith("var") else -0.5)
            )
    return module.eval()


def trained(subject, level=0.3, n_steps=10, strength=0.1):
    """Trains only the masks, and changes the weights slightly, as an optimizer would."""
    sparsifier = BottleneckMasks(subject, Aim(strength, level=level))
    for step in range(n_steps):
        subject.module.train().zero_grad()
        torch.autograd.backward(sparsifier.loss(subject.module(INPUTS), Batch(INPUTS, LABELS)))
        sparsifier.after_backward(step, n_steps)
        assert sparsifier.loss.masks.means.grad is None
        with torch.no_grad():
            for p in subject.module.parameters():
                p.sub_(0.01 * p.grad)
        sparsifier.after_step(step, n_steps)
    subject.module.eval()
    return sparsifier


NETWORKS = [PreActivation, Depthwise]


@pytest.fixture(params=["small", *NETWORKS], ids=["small", "pre-activation", "depthwise"])
def any_subject(request, subject):
    if request.param == "small":
        return subject
    torch.manual_seed(0)
    return small_subject(module=with_statistics(request.param()))


def test_the_folded_network_equals_the_masked_one(any_subject):
    structure = repr(any_subject.module)
    names = list(any_subject.module.state_dict())
    sparsifier = trained(any_subject)
    with torch.no_grad():
        masked = any_subject.module(INPUTS)
        on = sparsifier.finish()
        difference = float((masked - any_subject.module(INPUTS)).abs().max())
    assert not all(bool(mask.all()) for mask in on.values())
    assert difference <= 1e-5 * max(1.0, float(masked.abs().max()))
    assert (repr(any_subject.module), list(any_subject.module.state_dict())) == (structure, names)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in any_subject.module.modules())


def test_cutting_channels_that_are_off_changes_no_output(any_subject):
    on = trained(any_subject).finish()
    kept = {name: np.flatnonzero(mask.numpy()) for name, mask in on.items()}
    with torch.no_grad():
        small = cut(any_subject.module, any_subject.groups, kept)
        whole = any_subject.module(INPUTS)
        difference = float((small(INPUTS) - whole).abs().max())
    assert difference <= 1e-5 * max(1.0, float(whole.abs().max()))


def test_all_parameters_of_a_channel_that_is_off_are_exactly_zero(subject):
    on = trained(subject).finish()
    parameters = dict(subject.module.named_parameters())
    for group in subject.groups:
        off = ~on[group.name].numpy()
        for part in (s for s in group.slices if s.role != "in" and s.name in parameters):
            rows = parameters[part.name].detach()[part.rows[off].reshape(-1)]
            assert float(rows.abs().sum()) == 0.0
            assert float(parameters[part.name].detach()[part.rows[~off].reshape(-1)].abs().sum()) > 0.0


@pytest.mark.parametrize("level", [0.1, 0.25, 0.5])
def test_the_budget_is_met_within_two_percent(level):
    torch.manual_seed(int(100 * level))
    subject = small_subject(module=DigitsCNN(n_channels=3))
    on = trained(subject, level, n_steps=4).finish()
    assert 0.98 * level <= float(subject.shares.of(on)) <= level


def test_the_expected_share_falls_to_the_level(subject):
    sparsifier = BottleneckMasks(subject, Aim(0.01, level=0.3))
    budget, found = sparsifier.loss, []
    for step in range(60):
        found.append(float(budget.expected(1.0).detach()))
        budget.step_masks(step, 100)
        assert step >= 5 or float(budget.multipliers[0]) > 0.0
    assert found[0] > 0.95
    assert found[-1] < 0.6


def test_masks_are_drawn_in_train_mode_only_and_alike_for_a_seed(subject):
    places = mask_places(subject.module, subject.groups, INPUTS[:2])
    masks = Masks(subject.groups, seed=3)
    with masks.acting(subject.module, places), torch.no_grad():
        assert torch.equal(subject.module(INPUTS), subject.module(INPUTS))
        subject.module.bn1.momentum = subject.module.bn2.momentum = 0.0
        subject.module.train()
        first, again = subject.module(INPUTS), subject.module(INPUTS)
        masks.step.add_(1)
        next_step = subject.module(INPUTS)
    assert torch.equal(first, again)
    assert not torch.equal(first, next_step)


def test_places_are_behind_norms_and_where_there_are_none(subject):
    places = {p.module: list(p.rows) for p in mask_places(subject.module, subject.groups, INPUTS[:2])}
    assert places == {"bn1": ["conv1.weight"], "bn2": ["conv2.weight"], "fc1": ["fc1.weight"]}
    stream = small_subject(module=with_statistics(PreActivation()))
    assert {p.module for p in mask_places(stream.module, stream.groups, INPUTS[:2])} == {
        "stem", "outer", "bn", "inner",
    }  # fmt: skip


def test_groups_that_cannot_be_masked_stay_whole(subject):
    subject.module.bn1 = nn.BatchNorm2d(6, affine=False).eval()
    groups = tuple(
        type(g)(
            g.name,
            g.layers,
            g.n_channels,
            tuple(s for s in g.slices if s.name not in ("bn1.weight", "bn1.bias")),
        )
        for g in subject.groups
    )
    partial = small_subject(groups, subject.module)
    on = trained(partial, level=0.5).finish()
    assert on["conv1.weight"].tolist() == [True] * 6
    assert not bool(on["conv2.weight"].all())


def test_a_network_that_cannot_be_masked_raises(subject):
    subject.module.bn1 = nn.BatchNorm2d(6, affine=False).eval()
    group = subject.groups[0]
    slices = tuple(s for s in group.slices if s.name not in ("bn1.weight", "bn1.bias"))
    alone = (type(group)(group.name, group.layers, group.n_channels, slices),)
    with pytest.raises(
        StageError, match=r"bottleneck needs .* weights to fold masks into, .* conv1.weight has none"
    ):
        BottleneckMasks(small_subject(alone, subject.module), Aim(0.1, level=0.9))


def test_a_level_that_cannot_be_met_raises(subject):
    with pytest.raises(StageError, match=r"sparsify.level=0.001 cannot be met"):
        BottleneckMasks(subject, Aim(0.1, level=0.001))


def test_its_state_is_in_the_loss(subject):
    other = copy.deepcopy(subject)
    sparsifier = trained(subject, n_steps=5)
    state = sparsifier.loss.state_dict()
    assert {"masks.on", "masks.decided", "masks.step", "multipliers", "moments"} <= state.keys()
    again = BottleneckMasks(other, Aim(0.1, level=0.3))
    again.loss.load_state_dict(state)
    on, restored = sparsifier.finish(), again.finish()
    assert {k: v.tolist() for k, v in on.items()} == {k: v.tolist() for k, v in restored.items()}
