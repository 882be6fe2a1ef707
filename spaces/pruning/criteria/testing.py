"""What a criterion has to keep to, as tests to inherit, and a small network to try it on.

::

    class TestMyCriterion(CriterionConformance):
        @pytest.fixture
        def criterion(self): return MyCriterion()
"""

import pickle
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from spaces.pruning.criteria.criterion import Criterion, Evidence
from spaces.pruning.groups.group import Group, Slice

N_EXAMPLES = 40  # not a multiple of common batch sizes
N_CLASSES = 4
SPREAD = 1e-3  # of scores that are equal but for rounding; permuted sums round differently


class SmallNetwork(nn.Module):
    """`(n, 3, 6, 6)` -> `(n, 4)` logits: two convolutions with BatchNorm, and two linear layers, one behind a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 5, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(5)
        self.fc1 = nn.Linear(5 * 9, 8)
        self.fc2 = nn.Linear(8, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        x = functional.relu(self.fc1(torch.flatten(x, 1)))
        return self.fc2(x)  # type: ignore[no-any-return]


def small_network(seed: int = 0) -> SmallNetwork:
    """Returns it with random weights and BatchNorm statistics, in eval mode."""
    module = SmallNetwork()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator)
                spread = 1 / float(max(tensor[0].numel(), 2)) ** 0.5 if tensor.ndim > 1 else 0.5
                tensor.copy_(0.5 + noise.abs() if name.endswith("running_var") else spread * noise)
    return module.eval()


def small_groups() -> tuple[Group, ...]:
    """Returns the three groups of `SmallNetwork`, made by hand; the channels of the last have no BatchNorm."""
    conv1 = (
        Slice("conv1.weight", 0, _rows(6), "out"),
        *_norm("bn1", 6),
        Slice("conv2.weight", 1, _rows(6), "in"),
    )
    conv2 = (*_layer("conv2", 5), *_norm("bn2", 5), Slice("fc1.weight", 1, _rows(5, 9), "in"))
    fc1 = (*_layer("fc1", 8), Slice("fc2.weight", 1, _rows(8), "in"))
    found = {"conv1.weight": (6, conv1), "conv2.weight": (5, conv2), "fc1.weight": (8, fc1)}
    return tuple(Group(name, (name,), n, slices) for name, (n, slices) in found.items())


def small_evidence(groups: Sequence[Group] | None = None, seed: int = 0) -> Evidence:
    """Returns the small network with examples, labels and a seeded generator.

    Args:
        groups: The channels in question; those with a BatchNorm if None.
        seed: Of everything.
    """
    generator = torch.Generator().manual_seed(seed + 1)
    inputs = torch.randn(N_EXAMPLES, 3, 6, 6, generator=generator)
    labels = torch.randint(0, N_CLASSES, (N_EXAMPLES,), generator=generator)
    chosen = small_groups()[:2] if groups is None else groups
    return Evidence(small_network(seed), chosen, inputs, labels, torch.Generator().manual_seed(seed))


def permuted(evidence: Evidence, order: Mapping[str, Tensor]) -> Evidence:
    """Returns the same evidence with a network whose channels are in another order.

    Args:
        evidence: The input of a criterion.
        order: By name of the group, which channel comes at each place, `(n_channels,)`.
    """
    module = deepcopy(evidence.module)
    tensors = module.state_dict()
    for group in evidence.groups:
        for part in group.slices:
            tensor = tensors[part.name]
            index = torch.arange(tensor.shape[part.axis])
            rows = torch.from_numpy(part.rows)
            index[rows.reshape(-1)] = rows[order[group.name]].reshape(-1)
            tensor.copy_(tensor.index_select(part.axis, index))
    return replace(evidence, module=module)


def zeroed(evidence: Evidence, channel: int) -> Evidence:
    """Returns the same evidence with a network in which all parameters of one channel of every group are 0."""
    module = deepcopy(evidence.module)
    parameters = dict(module.named_parameters())
    for group in evidence.groups:
        for part in group.slices:
            if part.name in parameters:
                rows = torch.from_numpy(part.rows[channel])
                parameters[part.name].data.index_fill_(part.axis, rows, 0.0)
    return replace(evidence, module=module)


class CriterionConformance:
    """Inherit, and give at least the fixture `criterion`."""

    is_random = False
    """Whether the scores come from the generator alone, so that they do not go with the channels."""

    zero_is_lowest = True
    """Whether no channel matters less than one whose parameters are all 0."""

    @pytest.fixture
    def criterion(self) -> Criterion:
        """The criterion under test."""
        raise NotImplementedError("give a fixture named `criterion`")

    @pytest.fixture
    def evidence(self) -> Evidence:
        """A small network with examples and labels."""
        return small_evidence()

    def test_has_a_name_and_tells_what_it_needs(self, criterion: Criterion) -> None:
        """Who needs labels needs the examples that they belong to."""
        assert criterion.name.isidentifier()
        assert criterion.name == criterion.name.lower()
        assert criterion.needs_inputs or not criterion.needs_labels

    def test_scores_every_channel_of_every_group(self, criterion: Criterion, evidence: Evidence) -> None:
        """One finite float64 each."""
        scores = criterion.scores(evidence)
        assert {name: (s.dtype, tuple(s.shape)) for name, s in scores.items()} == {
            g.name: (torch.float64, (g.n_channels,)) for g in evidence.groups
        }
        assert all(bool(torch.isfinite(s).all()) and not s.requires_grad for s in scores.values())

    def test_tells_channels_apart(self, criterion: Criterion, evidence: Evidence) -> None:
        """Or it would be no criterion."""
        for scores in criterion.scores(evidence).values():
            assert float(scores.max() - scores.min()) > SPREAD * float(scores.abs().max())

    def test_groups_are_on_one_scale(self, criterion: Criterion, evidence: Evidence) -> None:
        """The mean of a group's scores is 1, so that one ranking can go over all groups."""
        for scores in criterion.scores(evidence).values():
            assert float(scores.mean()) == pytest.approx(1.0)
            assert float(scores.min()) >= 0.0

    def test_same_seed_same_scores(self, criterion: Criterion, evidence: Evidence) -> None:
        """Also on a copy that went to another process."""
        copy = pickle.loads(pickle.dumps(criterion))  # noqa: S301 - our own object, as an executor ships it
        first = criterion.scores(_seeded(evidence))
        for other in (criterion, copy):
            again = other.scores(_seeded(evidence))
            assert all(torch.equal(first[name], scores) for name, scores in again.items())

    def test_leaves_everything_as_it_was(self, criterion: Criterion, evidence: Evidence) -> None:
        """State, gradients, modes, hooks, examples, and what is asked of autograd."""
        before = deepcopy(evidence)
        with torch.no_grad():  # a criterion that needs gradients must not rely on the caller
            criterion.scores(evidence)
        old, new = before.module.state_dict(), evidence.module.state_dict()
        assert [name for name in old if not torch.equal(old[name], new[name])] == []
        assert [
            n for n, p in evidence.module.named_parameters() if p.grad is not None or not p.requires_grad
        ] == []
        assert [n for n, m in evidence.module.named_modules() if m.training or _n_hooks(m)] == []
        assert torch.equal(before.inputs, evidence.inputs)

    def test_a_silent_channel_matters_least(self, criterion: Criterion, evidence: Evidence) -> None:
        """Or as little as the least one."""
        if not self.zero_is_lowest:
            pytest.skip("a channel of zeros is nothing special to this criterion")
        for channel in (0, 3):
            for name, scores in criterion.scores(zeroed(_seeded(evidence), channel)).items():
                assert float(scores[channel]) == float(scores.min()), name

    def test_scores_go_with_their_channels(self, criterion: Criterion, evidence: Evidence) -> None:
        """In whatever order the channels are."""
        if self.is_random:
            pytest.skip("random scores belong to places, not to channels")
        generator = torch.Generator().manual_seed(1)
        order = {g.name: torch.randperm(g.n_channels, generator=generator) for g in evidence.groups}
        plain = criterion.scores(_seeded(evidence))
        moved = criterion.scores(permuted(_seeded(evidence), order))
        for name, scores in moved.items():
            assert torch.allclose(scores, plain[name][order[name]], rtol=SPREAD, atol=SPREAD), name

    def test_a_group_is_scored_by_itself(self, criterion: Criterion, evidence: Evidence) -> None:
        """Whether others are in question, too, does not matter."""
        if self.is_random:
            pytest.skip("random scores depend on how many were drawn before")
        everything = criterion.scores(_seeded(evidence))
        for group in evidence.groups:
            alone = criterion.scores(replace(_seeded(evidence), groups=(group,)))
            assert torch.allclose(alone[group.name], everything[group.name])

    def test_needs_no_more_than_it_says(self, criterion: Criterion, evidence: Evidence) -> None:
        """Without labels, without examples: the same scores."""
        scores = criterion.scores(_seeded(evidence))
        less = replace(_seeded(evidence), labels=evidence.labels if criterion.needs_labels else None)
        if not criterion.needs_inputs:
            less = replace(less, inputs=evidence.inputs[:0])
        again = criterion.scores(less)
        assert all(torch.equal(again[name], values) for name, values in scores.items())


def _seeded(evidence: Evidence) -> Evidence:
    return replace(evidence, generator=torch.Generator().manual_seed(0))


def _n_hooks(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)


def _layer(name: str, n_channels: int) -> tuple[Slice, ...]:
    return tuple(Slice(f"{name}.{part}", 0, _rows(n_channels), "out") for part in ("weight", "bias"))


def _norm(name: str, n_channels: int) -> tuple[Slice, ...]:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return tuple(Slice(f"{name}.{vector}", 0, _rows(n_channels), "norm") for vector in vectors)


def _rows(n_channels: int, k: int = 1) -> NDArray[np.int64]:
    return np.arange(n_channels * k).reshape(n_channels, k)
