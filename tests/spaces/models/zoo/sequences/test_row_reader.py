import numpy as np
import pytest
import torch

from spaces.errors import ConfigError
from spaces.models.base import LoadContext
from spaces.models.testing import ModelSourceConformance
from spaces.models.zoo.sequences.row_reader import RowReader, RowReaderModel
from spaces.stages.array_split import ArraySplit


def rows(n=64):
    """A split in which every two columns are bright (1) or dark (0), at random."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (n, 6))
    x = np.repeat(labels, 2, axis=1)[:, None, None] + random.normal(0, 0.1, (n, 1, 4, 12))
    return ArraySplit(x.astype(np.float32), labels)


def small(**more):
    return RowReaderModel(**{"n_classes": 2, "input_shape": [1, 4, 12], "width": 8} | more)


@pytest.fixture
def context(tmp_path):
    return LoadContext(rows(), tmp_path, loss="tokens")


class TestConvolution(ModelSourceConformance):
    @pytest.fixture
    def source(self):
        return small(epochs=1)

    @pytest.fixture
    def context(self, tmp_path):
        return LoadContext(rows(), tmp_path, loss="tokens")


@pytest.mark.parametrize("recurrent", [False, True])
def test_it_learns_each_steps_class(recurrent, context):
    network = small(recurrent=recurrent, epochs=15).load(context).model
    with torch.no_grad():
        outputs = network(torch.from_numpy(rows().inputs))
    assert outputs.shape == (64, 6, 2)
    assert (outputs.argmax(2).numpy() == rows().labels).mean() > 0.9


def test_heights_and_classes_follow_the_settings():
    assert RowReader(5, 12, 8)(torch.zeros(2, 1, 12, 20)).shape == (2, 10, 5)


@pytest.mark.parametrize("wrong", [{"input_shape": [1, 6, 12]}, {"input_shape": [4, 12]}, {"width": 7}])
def test_wrong_settings_raise(wrong):
    with pytest.raises(ConfigError, match=r"model\."):
        small(**wrong)
