"""Weights, inputs and condition numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from spaces.errors import ConfigError, StageError
from spaces.pruning.criteria.condition import Condition, condition_ratios, importance
from spaces.pruning.criteria.testing import small_evidence, small_groups, small_network
from spaces.pruning.groups.columns import columns


@given(st.integers(2, 12), st.integers(1, 12), st.integers(0, 1000))
def test_ratios_are_those_of_the_condition_numbers(n_rows, n_values, seed):
    values = np.random.default_rng(seed).standard_normal((n_rows, n_values))
    whole = np.linalg.cond(values)
    wanted = [whole / np.linalg.cond(np.delete(values, row, axis=0)) for row in range(n_rows)]
    np.testing.assert_allclose(condition_ratios(torch.from_numpy(values)), wanted, rtol=1e-4)


@pytest.mark.parametrize(
    "values",
    [np.eye(4), np.diag([3.0, 3.0, 1.0, 1.0]), np.diag([1.0, 2.0, 2.0, 3.0]), np.eye(4)[:, :3] + 0.1],
)
def test_ratios_where_eigenvalues_or_eigenvectors_coincide(values):
    wanted = [np.linalg.cond(values) / np.linalg.cond(np.delete(values, row, axis=0)) for row in range(4)]
    np.testing.assert_allclose(condition_ratios(torch.from_numpy(values)), wanted, rtol=1e-6)


def test_a_linearly_dependent_row_has_a_bounded_ratio():
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.5, 0.5]], dtype=torch.float64)[:, :2]
    ratios = condition_ratios(torch.cat([values, values[:1]]).repeat(1, 3))
    assert bool(torch.isfinite(ratios).all())


def test_one_row_has_no_others():
    assert condition_ratios(torch.ones(1, 3, dtype=torch.float64)).tolist() == [1.0]


def test_a_zero_channel_scores_0_and_does_not_affect_the_others():
    values = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 9)))
    with_silent = torch.cat([values[:2], torch.zeros(1, 9, dtype=torch.float64), values[2:]])
    scores = importance(with_silent)
    assert scores[2] == 0.0
    assert torch.allclose(scores[[0, 1, 3, 4, 5]], importance(values))


def test_scores_are_norms_times_ratios():
    evidence = small_evidence()
    module = evidence.module
    with torch.no_grad():
        x = functional.relu(module.bn1(module.conv1(evidence.inputs)))
        inputs = columns(module.conv2, x).double()  # (6 channels * 9 kernel elements, n_positions)
    scaled = module.conv2.weight.detach().double().flatten(1) * inputs.norm(dim=1)
    by_channel = scaled.reshape(5, 6, 9).transpose(0, 1).flatten(1).numpy()
    whole = np.linalg.cond(by_channel)
    ratios = np.array([whole / np.linalg.cond(np.delete(by_channel, j, axis=0)) for j in range(6)])
    wanted = np.linalg.norm(by_channel, axis=1) * ratios
    np.testing.assert_allclose(
        Condition().scores(evidence)["conv1.weight"], wanted / wanted.mean(), rtol=1e-5
    )


def test_the_features_of_a_channel_behind_a_flatten_count_together():
    evidence = small_evidence()
    evidence.module.fc1.weight.data[:, 9:18] = 0.0  # all weights on conv2's second channel
    scores = Condition().scores(evidence)["conv2.weight"]
    assert scores[1] == 0.0
    assert float(np.sort(scores)[1]) > 0.0


def test_several_consumers_are_averaged():
    evidence, group = small_evidence(), small_groups()[0]
    consumer = next(s for s in group.slices if s.role == "in")
    twice = replace(group, slices=(*group.slices, consumer))
    one, two = (Condition().scores(replace(evidence, groups=(g,)))["conv1.weight"] for g in (group, twice))
    assert torch.allclose(one, two)


class Watched(nn.Module):
    """Records whether gradients were enabled in each forward pass, and the number of examples."""

    def __init__(self, network):
        super().__init__()
        self.conv1, self.conv2, self.fc1 = network.conv1, network.conv2, network.fc1
        self.inner, self.grads, self.sizes = [network], [], []

    def forward(self, x):
        self.grads.append(torch.is_grad_enabled())
        self.sizes.append(len(x))
        return self.inner[0](x)


def test_no_gradient_is_ever_computed():
    evidence = small_evidence()
    watched = Watched(small_network()).eval()
    groups = tuple(
        replace(g, slices=tuple(s for s in g.slices if s.role != "norm")) for g in small_groups()[:2]
    )
    scores = Condition(batch_size=16).scores(replace(evidence, module=watched, groups=groups))
    assert watched.grads == [False] * 3
    assert watched.sizes == [16, 16, 8]
    assert [name for name, p in watched.named_parameters() if p.grad is not None] == []
    for name, wanted in Condition().scores(evidence).items():
        assert torch.allclose(scores[name], wanted)


def test_channels_without_consumers_raise():
    evidence, group = small_evidence(), small_groups()[0]
    bare = replace(group, slices=tuple(s for s in group.slices if s.role != "in"))
    with pytest.raises(StageError, match=r"criterion=condition.*takes the channels of conv1\.weight"):
        Condition().scores(replace(evidence, groups=(bare,)))


def test_no_examples_are_an_error():
    evidence = small_evidence()
    with pytest.raises(StageError, match="needs examples"):
        Condition().scores(replace(evidence, inputs=evidence.inputs[:0]))


def test_a_batch_has_examples():
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        Condition(0)
