"""Sparsity-aware training of the digits network on real digits."""

import pytest

from evaluators.task.tasks.classification.digits import DigitsTask
from spaces.models.base import LoadContext
from spaces.models.zoo.digits_cnn import DigitsCNNModel
from spaces.pruning.sparsity.sparsify import SparsifyStage
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def train():
    return DigitsTask().splits().train


@pytest.fixture(scope="module")
def dense(train, tmp_path_factory):
    return DigitsCNNModel().load(LoadContext(train=train, cache_dir=tmp_path_factory.mktemp("digits")))


def notes(dense, train, **values):
    context = StageContext(None, Cache(), train=train, accelerator="cpu")
    stage = SparsifyStage(threads=1)
    found = stage.apply(dense, stage.defaults() | {"batch_size": 64, "epochs": 5} | values, context)
    return found.notes["sparsify"]


@pytest.mark.parametrize("level", [0.5, 0.25, 0.1])
@pytest.mark.parametrize("method", ["group_envelope", "bottleneck"])
def test_the_level_is_met_within_two_percent(dense, train, method, level):
    found = notes(dense, train, method=method, level=level, strength=0.1)
    assert 0.98 * level <= found["kept_macs_share"] <= level
    assert found["zero_share"] > 0


def test_strength_widens_the_histogram_of_scales(dense, train):
    shares = [
        notes(dense, train, method="bn_gamma", strength=s, epochs=10)["zero_share"] for s in (1e-6, 0.01, 0.3)
    ]
    assert shares[0] == 0.0
    assert shares[1] <= shares[2]
    assert shares[2] > 0.1
