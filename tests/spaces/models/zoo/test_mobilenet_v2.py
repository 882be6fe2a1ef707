from pathlib import Path

import pytest
import torch

from spaces.errors import ConfigError
from spaces.models.base import LoadContext
from spaces.models.testing import ModelSourceConformance
from spaces.models.zoo.mobilenet_v2 import MobileNetV2, MobileNetV2Model, round_channels

CHECKPOINT = Path(__file__).parents[4].parent / "shared/data/weights/mobilenet_v2-b0353104.pth"


@pytest.mark.slow  # torch takes seconds to export it
class TestNarrow(ModelSourceConformance):
    @pytest.fixture
    def source(self):
        return MobileNetV2Model(None, width=0.1, n_classes=5, input_shape=[3, 32, 32])


# Table 4 of the paper says 3.4 M at width 1.0; the exact count is that of the published networks.
@pytest.mark.parametrize(("width", "exact"), [(1.0, 3_504_872), (1.4, 6_108_776)])
def test_parameters(width, exact):
    assert sum(p.numel() for p in MobileNetV2(width).parameters()) == exact


@pytest.mark.parametrize(
    ("channels", "rounded"), [(32, 32), (11.2, 16), (22.4, 24), (3.2, 8), (12, 16), (1792, 1792)]
)
def test_channels_are_multiples_of_8(channels, rounded):
    assert round_channels(channels) == rounded


def test_width_is_checked():
    with pytest.raises(ConfigError, match=r"model\.width must be positive"):
        MobileNetV2Model(None, width=0)


def test_published_checkpoint_loads_unchanged(tmp_path):
    if not CHECKPOINT.is_file():
        pytest.skip("the published checkpoint is absent")
    artifact = MobileNetV2Model(str(CHECKPOINT)).load(LoadContext(None, tmp_path))
    published = torch.load(CHECKPOINT, weights_only=True, map_location="cpu")
    assert list(published) == list(artifact.model.state_dict())
    assert torch.equal(artifact.model.classifier[1].weight, published["classifier.1.weight"])
