"""Our own simple criteria, and the registry of all."""

import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from spaces.errors import StageError
from spaces.pruning.criteria.bn_gamma import BnGamma
from spaces.pruning.criteria.criterion import Criterion, Evidence
from spaces.pruning.criteria.magnitude_l1 import MagnitudeL1
from spaces.pruning.criteria.magnitude_l2 import MagnitudeL2
from spaces.pruning.criteria.random_scores import RandomScores
from spaces.pruning.criteria.registry import CRITERIA
from spaces.pruning.criteria.testing import CriterionConformance, small_evidence, small_network
from spaces.pruning.groups.find import channel_groups


class TestMagnitudeL1(CriterionConformance):
    @pytest.fixture
    def criterion(self):
        return MagnitudeL1()


class TestMagnitudeL2(CriterionConformance):
    @pytest.fixture
    def criterion(self):
        return MagnitudeL2()


class TestBnGamma(CriterionConformance):
    @pytest.fixture
    def criterion(self):
        return BnGamma()


class TestRandom(CriterionConformance):
    is_random = True
    zero_is_lowest = False

    @pytest.fixture
    def criterion(self):
        return RandomScores()


def evidence_of(module, shape=(3, 6, 6)):
    nothing = torch.zeros(0, *shape)
    return Evidence(module.eval(), channel_groups(module, shape), nothing, None, torch.Generator())


@pytest.mark.parametrize("name", CRITERIA)
def test_a_row_says_what_its_criterion_says(name):
    criterion = CRITERIA[name].make()
    assert isinstance(criterion, Criterion)
    row = CRITERIA[name]
    assert (criterion.name, criterion.needs_inputs, criterion.needs_labels) == (
        name,
        row.needs_inputs,
        row.needs_labels,
    )
    assert row.description
    assert type(pickle.loads(pickle.dumps(criterion))) is type(criterion)


def test_the_registry_does_not_import_torch():
    code = "import sys, spaces.pruning.criteria.registry, spaces.pruning.prune, spaces.pruning.iterative; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_norms_by_hand():
    module = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.Conv2d(2, 2, 1))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[3.0, -4.0, 0.0], [1.0, 1.0, 1.0]])[:, :, None, None])
    l1 = MagnitudeL1().scores(evidence_of(module))["0.weight"]
    l2 = MagnitudeL2().scores(evidence_of(module))["0.weight"]
    assert l1.tolist() == pytest.approx([1.4, 0.6])
    assert l2.tolist() == pytest.approx([5 / (5 + 3**0.5) * 2, 3**0.5 / (5 + 3**0.5) * 2])


def test_no_layer_of_a_stream_drowns_the_others():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.loud, self.soft, self.head = (
                nn.Conv2d(n, m, 1, bias=False) for n, m in ((3, 2), (3, 2), (2, 1))
            )
            with torch.no_grad():
                self.loud.weight.copy_(torch.tensor([1000.0, 1100.0])[:, None, None, None].expand(2, 3, 1, 1))
                self.soft.weight.copy_(torch.tensor([0.2, 0.1])[:, None, None, None].expand(2, 3, 1, 1))

        def forward(self, x):
            return self.head(torch.relu(self.loud(x) + self.soft(x)))

    scores = MagnitudeL1().scores(evidence_of(Sum()))["loud.weight"]
    assert scores.tolist() == pytest.approx([(20 / 21 + 4 / 3) / 2, (22 / 21 + 2 / 3) / 2])


def test_the_scale_of_a_layer_does_not_matter():
    evidence = small_evidence()
    plain = MagnitudeL2().scores(evidence)
    with torch.no_grad():
        evidence.module.conv1.weight.mul_(7)
    assert all(torch.allclose(s, plain[n]) for n, s in MagnitudeL2().scores(evidence).items())


def test_gammas_are_what_counts():
    evidence = small_evidence()
    scores = BnGamma().scores(evidence)
    gamma = evidence.module.bn1.weight.detach().double().abs()
    assert torch.allclose(scores["conv1.weight"], gamma / gamma.mean())


def test_without_a_batch_norm_the_layer_is_named():
    with pytest.raises(StageError, match=r"bn_gamma needs a BatchNorm .* none behind fc1\.weight"):
        BnGamma().scores(evidence_of(small_network()))
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 2, 1))
    with pytest.raises(StageError, match=r"none behind 0\.weight"):
        BnGamma().scores(evidence_of(module))


def test_weights_that_are_not_finite():
    evidence = small_evidence()
    with torch.no_grad():
        evidence.module.conv1.weight[0] = torch.nan
    with pytest.raises(StageError, match=r"magnitude_l1 gives scores that are not finite for conv1\.weight"):
        MagnitudeL1().scores(evidence)


def test_random_scores_come_from_the_seed():
    first, again, other = (RandomScores().scores(small_evidence(seed=s)) for s in (0, 0, 1))
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
