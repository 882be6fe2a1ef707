from pathlib import Path

import pytest
import torch

from spaces.errors import ConfigError, InputError
from spaces.models.base import LoadContext
from spaces.models.testing import ModelSourceConformance
from spaces.models.zoo.cifar_resnet import CifarResNet, CifarResNetModel

WEIGHTS = Path(__file__).parents[4].parent / "shared/data/weights"


class TestRandomWeights(ModelSourceConformance):
    @pytest.fixture
    def source(self):
        return CifarResNetModel(8, None, n_classes=4, input_shape=[3, 16, 16])


# Table 6 of the paper, millions of parameters; and the exact count for 10 classes.
@pytest.mark.parametrize(
    ("depth", "published", "exact"),
    [
        (20, 0.27, 269_722),
        (32, 0.46, 464_154),
        (44, 0.66, 658_586),
        (56, 0.85, 853_018),
        (110, 1.7, 1_727_962),
    ],
)
def test_parameters(depth, published, exact):
    n = sum(p.numel() for p in CifarResNet(depth).parameters())
    assert n == exact
    assert round(n / 1e6, 1 if depth == 110 else 2) == published


def test_shortcut_has_no_weights_and_halves():
    net = CifarResNet(8)
    shortcut = net.layer2[0].shortcut
    assert list(shortcut.parameters()) == []
    x = torch.rand(2, 16, 6, 6)
    y = shortcut(x)
    assert y.shape == (2, 32, 3, 3)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert y[:, :8].abs().sum() == y[:, 24:].abs().sum() == 0


@pytest.mark.parametrize("depth", [0, 2, 18, 54])
def test_depth_is_checked(depth):
    with pytest.raises(ConfigError, match=r"model\.depth must be 6n \+ 2"):
        CifarResNetModel(depth, None)


def test_published_names():
    names = set(CifarResNet(20).state_dict())
    assert {
        "conv1.weight",
        "bn1.running_mean",
        "layer1.0.conv1.weight",
        "layer3.2.bn2.bias",
        "linear.bias",
    } <= names


@pytest.mark.parametrize(("depth", "file"), [(20, "resnet20-12fca82f.th"), (32, "resnet32-d509ac18.th")])
def test_published_checkpoints_load_unchanged(depth, file, tmp_path):
    if not (WEIGHTS / file).is_file():
        pytest.skip(f"{file} is absent")
    artifact = CifarResNetModel(depth, str(WEIGHTS / file)).load(LoadContext(None, tmp_path))
    published = torch.load(WEIGHTS / file, weights_only=True, map_location="cpu")["state_dict"]
    assert torch.equal(artifact.model.linear.weight, published["module.linear.weight"])
    with pytest.raises(InputError, match="does not fit CifarResNet"):
        CifarResNetModel(44, str(WEIGHTS / file)).load(LoadContext(None, tmp_path))
