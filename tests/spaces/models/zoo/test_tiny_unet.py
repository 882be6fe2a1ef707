import numpy as np
import pytest
import torch

from spaces.errors import ConfigError
from spaces.models.base import LoadContext
from spaces.models.testing import ModelSourceConformance
from spaces.models.zoo.tiny_unet import TinyUNet, TinyUNetModel
from spaces.stages.array_split import ArraySplit


def halves(n=48):
    """Images whose brighter half is class 1; the border between the halves is ignored."""
    rng = np.random.default_rng(0)
    labels = np.zeros((n, 8, 8), np.int16)
    for label, at in zip(labels, rng.integers(2, 7, n), strict=True):
        label[:, at:], label[:, at - 1] = 1, -1
    x = (labels > 0) + rng.normal(0, 0.2, labels.shape)
    return ArraySplit(x[:, None].astype(np.float32), labels)


def small(**more):
    return TinyUNetModel(**{"n_classes": 2, "input_shape": [1, 8, 8], "widths": [4, 6], "epochs": 4} | more)


class TestTinyUNet(ModelSourceConformance):
    @pytest.fixture
    def source(self):
        return small(epochs=1)

    @pytest.fixture
    def context(self, tmp_path):
        return LoadContext(halves(), tmp_path)


def test_size():
    assert sum(p.numel() for p in TinyUNet().parameters()) == 23_436


@pytest.mark.parametrize("widths", [(4,), (4, 6), (3, 4, 5)])
def test_outputs_have_the_size_of_the_input(widths):
    assert TinyUNet(5, 2, widths).eval()(torch.zeros(2, 2, 12, 8)).shape == (2, 5, 12, 8)


def test_the_network_learns(tmp_path):
    split = halves()
    artifact = small().load(LoadContext(split, tmp_path))
    with torch.no_grad():
        given = artifact.model(torch.from_numpy(split.inputs)).argmax(1).numpy()
    assert (given == split.labels)[split.labels >= 0].mean() > 0.9


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"widths": []}, "model.widths must list positive whole numbers"),
        ({"widths": [4, 0]}, "model.widths must list positive whole numbers"),
        ({"input_shape": [1, 8, 7]}, "with sides that 2 divides"),
        ({"input_shape": [8, 8]}, r"model.input_shape must be \[channels, height, width\]"),
    ],
)
def test_invalid_values_name_the_key(values, text):
    with pytest.raises(ConfigError, match=text):
        small(**values)
