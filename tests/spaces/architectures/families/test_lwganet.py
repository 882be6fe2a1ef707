import pytest

from spaces.architectures.families.lwganet import LWGANet
from spaces.architectures.testing import FamilyConformance

SIZES = {
    "L0": ({}, 2_940_778),
    "L1": ({"stem_dim": 64}, 7_130_330),
    "L2": ({"stem_dim": 96, "depth2": 4, "activation": "relu"}, 14_264_022),
}


class SmallLWGANet(LWGANet):
    """Defaults that export in less time."""

    def defaults(self):
        return super().defaults() | {"stem_dim": 8, "depth2": 1, "depth3": 1, "depth4": 1, "features": 16}


@pytest.mark.slow  # four stages of four ranges take a while to export
class TestLWGANet(FamilyConformance):
    @pytest.fixture
    def family(self):
        return SmallLWGANet()


@pytest.mark.parametrize("size", SIZES)
def test_published_sizes_have_the_published_parameters(size):
    values, parameters = SIZES[size]
    assert LWGANet().counts(LWGANet().defaults() | values, (3, 224, 224), 1000).parameters == parameters
