"""Every criterion keeps to what a criterion has to keep to."""

import sys

import pytest

from spaces.pruning.criteria.condition import Condition
from spaces.pruning.criteria.disturbed_taylor import DisturbedTaylor
from spaces.pruning.criteria.registry import BUILT_IN, Criteria
from spaces.pruning.criteria.testing import CriterionConformance, small_evidence


class Registered(CriterionConformance):
    """A criterion as the prune stage gets it."""

    name = ""

    @pytest.fixture
    def criterion(self):
        return Criteria()[self.name]


class TestMagnitudeL1(Registered):
    name = "magnitude_l1"


class TestMagnitudeL2(Registered):
    name = "magnitude_l2"


class TestBnGamma(Registered):
    name = "bn_gamma"


class TestFpgm(Registered):
    name = "fpgm"
    zero_is_lowest = False  # it may be far from all others


class TestTaylor(Registered):
    name = "taylor"


class TestDisturbedTaylor(Registered):
    name = "disturbed_taylor"


class TestCondition(Registered):
    name = "condition"


class TestRandom(Registered):
    name = "random"
    is_random = True
    zero_is_lowest = False


class TestConfigured(CriterionConformance):
    @pytest.fixture(params=[DisturbedTaylor(sigma=1.0, batch_size=7), Condition(batch_size=7)])
    def criterion(self, request):
        return request.param


def test_every_registered_criterion_is_tested():
    tests = vars(sys.modules[__name__]).values()
    tested = {t.name for t in tests if isinstance(t, type) and issubclass(t, Registered)}
    assert tested - {""} == set(BUILT_IN)


@pytest.mark.parametrize("name", BUILT_IN)
def test_names_are_those_of_the_classes(name):
    assert Criteria()[name].name == name


def test_no_two_criteria_are_the_same():
    found = {}
    for name, criterion in Criteria().items():
        scores = criterion.scores(small_evidence())
        found[name] = tuple(scores["conv1.weight"].tolist())
    assert len(set(found.values())) == len(BUILT_IN)
