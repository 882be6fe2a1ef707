import numpy as np
import pytest
import torch

from spaces.errors import ConfigError
from spaces.models.base import LoadContext
from spaces.models.testing import ModelSourceConformance
from spaces.models.zoo.sequences.sound_cnn import SoundCNN, SoundCNNModel
from spaces.stages.array_split import ArraySplit


def bands(n=96, n_classes=3):
    """A split whose class is the loudest band."""
    labels = np.arange(n) % n_classes
    x = np.random.default_rng(0).normal(0, 0.5, (n, 1, 16, 12))
    x[np.arange(n), 0, :, 4 * labels] += 2
    return ArraySplit(x.astype(np.float32), labels)


def small(**more):
    return SoundCNNModel(**{"n_classes": 3, "input_shape": [1, 16, 12], "width": 8, "blocks": 1} | more)


class TestSoundCNN(ModelSourceConformance):
    @pytest.fixture
    def source(self):
        return small(epochs=1)

    @pytest.fixture
    def context(self, tmp_path):
        return LoadContext(bands(), tmp_path)


def test_size():
    assert sum(p.numel() for p in SoundCNN().parameters()) == 5_900


def test_it_learns(tmp_path):
    split = bands()
    network = small(epochs=30).load(LoadContext(split, tmp_path)).model
    with torch.no_grad():
        found = network(torch.from_numpy(split.inputs)).argmax(1).numpy()
    assert (found == split.labels).mean() > 0.9


@pytest.mark.parametrize(
    "wrong", [{"input_shape": [16, 12]}, {"input_shape": [2, 16, 12]}, {"width": 0}, {"blocks": 1.5}]
)
def test_wrong_settings_raise(wrong):
    with pytest.raises(ConfigError, match=r"model\."):
        small(**wrong)
