"""Filters near the geometric median are cut first."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from spaces.errors import StageError
from spaces.pruning.criteria.fpgm import Fpgm
from spaces.pruning.criteria.testing import small_evidence, small_groups
from spaces.pruning.groups.group import Group, Slice


@pytest.fixture
def evidence():
    return small_evidence()


def conv1_scores(evidence):
    return Fpgm().scores(evidence)["conv1.weight"]


def test_scores_are_sums_of_distances_over_their_mean(evidence):
    filters = evidence.module.conv1.weight.detach().flatten(1).double().numpy()
    sums = np.linalg.norm(filters[:, None] - filters[None], axis=2).sum(axis=1)
    np.testing.assert_allclose(conv1_scores(evidence), sums / sums.mean(), rtol=1e-10)


def test_the_filter_in_the_middle_of_the_others_is_cut_first(evidence):
    weight = evidence.module.conv1.weight.data
    weight[1], weight[4] = -weight[0], -weight[3]
    weight[2], weight[5] = 0.0, 2 * weight[0]
    assert int(conv1_scores(evidence).argmin()) == 2


def test_norms_do_not_matter(evidence):
    """The same filters far from 0 have the same scores."""
    plain = conv1_scores(evidence)
    evidence.module.conv1.weight.data += 10.0
    assert torch.allclose(conv1_scores(evidence), plain, rtol=1e-4)


def test_filters_of_dependent_layers_are_concatenated(evidence):
    first = small_groups()[0]
    consumer = next(s for s in first.slices if s.role == "in")
    dependent = replace(first, slices=(*first.slices, replace(consumer, role="out")))
    weights = [
        evidence.module.conv1.weight.flatten(1),
        evidence.module.conv2.weight.transpose(0, 1).flatten(1),
    ]
    filters = torch.cat(weights, dim=1).detach().double()
    sums = (filters[:, None] - filters).norm(dim=2).sum(dim=1)
    assert torch.allclose(conv1_scores(replace(evidence, groups=(dependent,))), sums / sums.mean())


def test_one_channel_has_nothing_to_compare_with(evidence):
    row = np.zeros((1, 1), np.int64)
    only = Group("conv1.weight", ("conv1.weight",), 1, (Slice("conv1.weight", 0, row, "out"),))
    assert conv1_scores(replace(evidence, groups=(only,))).tolist() == [0.0]


def test_no_filters_is_an_error(evidence):
    group = small_groups()[0]
    bare = replace(group, slices=tuple(s for s in group.slices if s.role != "out"))
    with pytest.raises(StageError, match=r"fpgm.*conv1\.weight"):
        Fpgm().scores(replace(evidence, groups=(bare,)))


def test_weights_that_are_not_finite_are_an_error(evidence):
    evidence.module.conv1.weight.data[2, 0, 0, 0] = torch.nan
    with pytest.raises(StageError, match=r"criterion=fpgm.*not finite for conv1\.weight"):
        Fpgm().scores(evidence)
