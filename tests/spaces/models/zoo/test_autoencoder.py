import numpy as np
import pytest
import torch

from spaces.errors import ConfigError, InputError
from spaces.models.base import LoadContext
from spaces.models.testing import ModelSourceConformance
from spaces.models.zoo.autoencoder import Autoencoder, AutoencoderModel
from spaces.stages.array_split import ArraySplit


def waves(n=96):
    """Points on a curve in 12 dimensions, with flag and clip before them as labels."""
    rng = np.random.default_rng(0)
    x = np.sin(rng.uniform(0, 6, (n, 1)) + np.arange(12) / 3).astype(np.float32)
    return ArraySplit(x, np.concatenate([np.zeros((n, 1)), np.full((n, 1), 9), x], axis=1, dtype=np.float32))


def small(**more):
    return AutoencoderModel(**{"input_shape": [12], "hidden": [16], "code": 3, "epochs": 20} | more)


class TestAutoencoder(ModelSourceConformance):
    @pytest.fixture
    def source(self):
        return small(epochs=1)

    @pytest.fixture
    def context(self, tmp_path):
        return LoadContext(waves(), tmp_path, loss="reconstruction")


def test_sizes():
    assert sum(p.numel() for p in Autoencoder().parameters()) == 13_264
    tiny = Autoencoder(640, (128, 128, 128, 128, 8))  # MLPerf Tiny's has 264,192 weights in linear layers
    assert sum(m.weight.numel() for m in tiny.modules() if isinstance(m, torch.nn.Linear)) == 264_192


def test_the_network_learns(tmp_path):
    split = waves()
    artifact = small().load(LoadContext(split, tmp_path, loss="reconstruction"))
    with torch.no_grad():
        found = artifact.model(torch.from_numpy(split.inputs)).numpy()
    assert ((found - split.inputs) ** 2).mean() < 0.2 * split.inputs.var()


def test_labels_of_another_size_are_refused(tmp_path):
    split = waves()
    with pytest.raises(InputError, match="the network yields"):
        small().load(LoadContext(split, tmp_path, loss="squared"))


@pytest.mark.parametrize("values", [{"hidden": [0]}, {"code": 0}, {"hidden": ["x"]}])
def test_invalid_values_name_the_key(values):
    with pytest.raises(ConfigError, match="must be positive whole numbers"):
        small(**values)
