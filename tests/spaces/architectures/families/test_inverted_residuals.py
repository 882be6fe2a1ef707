import pytest
import torch

from spaces.architectures.families.inverted_residuals import InvertedResiduals
from spaces.architectures.testing import FamilyConformance
from spaces.errors import ConfigError

SHORT = ((1, 8, 1, 1), (6, 16, 2, 2), (6, 24, 1, 2))


class TestInvertedResiduals(FamilyConformance):
    @pytest.fixture
    def family(self):
        return InvertedResiduals(SHORT, stem=16, last=64)


@pytest.mark.slow  # 17 blocks take a while to export
class TestMobileNetV2(FamilyConformance):
    @pytest.fixture
    def family(self):
        return InvertedResiduals()


@pytest.mark.parametrize(
    ("width", "parameters", "macs"), [(1.0, 3_504_872, 300_774_272), (1.4, 6_108_776, None)]
)
def test_mobilenet_v2_has_the_published_costs(width, parameters, macs):
    family = InvertedResiduals()
    counts = family.counts(family.defaults() | {"width": width}, (3, 224, 224), 1000)
    assert counts.parameters == parameters
    assert macs in (None, counts.macs)


def test_squeeze_and_excitation_is_that_of_mobilenet_v3():
    """A block of 16 channels, expanded to 96, with 24 channels between its two 1x1 convolutions and their biases."""
    family = InvertedResiduals(((6, 16, 1, 1),), stem=16)
    plain, scaled = (
        family.counts(family.defaults() | {"se": se, "halvings": 0}, (3, 8, 8), 10) for se in (False, True)
    )
    assert scaled.parameters - plain.parameters == 96 * 24 + 24 + 24 * 96 + 96


@pytest.mark.parametrize(("halvings", "left"), [(5, 1), (3, 4), (0, 32)])
def test_the_first_strides_go_for_small_images(halvings, left):
    values = InvertedResiduals().defaults() | {"halvings": halvings, "width": 0.1}
    with torch.device("meta"):
        features = InvertedResiduals().build(values, (3, 32, 32), 10).features.eval()
        assert features(torch.zeros(1, 3, 32, 32)).shape[-2:] == (left, left)


def test_images_that_are_too_small_are_scaled_up():
    family = InvertedResiduals()
    assert "strides of 32" in family.broken(family.defaults(), (1, 8, 8))
    assert family.broken(family.defaults() | {"resolution": 32}, (1, 8, 8)) is None


def test_depth_rounds_up():
    values = InvertedResiduals().defaults() | {"depth": 0.3}
    blocks = len(InvertedResiduals().build(values, (3, 32, 32), 10).features) - 2
    assert blocks == 1 + 1 + 1 + 2 + 1 + 1 + 1


def test_a_stage_has_four_numbers():
    with pytest.raises(ConfigError, match=r"model\.family\.stages: \[6, 16\] is not"):
        InvertedResiduals(((6, 16),))
