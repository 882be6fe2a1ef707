import pytest
import torch
from torch import nn

from spaces.architectures.families.phantom import Phantom, PhantomConv
from spaces.architectures.testing import FamilyConformance

DEFAULTS = Phantom().defaults()


class TestPhantom(FamilyConformance):
    @pytest.fixture
    def family(self):
        return Phantom()


@pytest.mark.parametrize("ratio", [0.25, 0.5])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("kernel", "cheap"), [(3, 3), (3, 5), (5, 3)])
def test_a_block_has_as_many_weights_as_the_formula_says(ratio, groups, kernel, cheap):
    values = {"phantom_ratio": ratio, "groups": groups, "kernel": kernel, "cheap_kernel": cheap}
    block = PhantomConv(16, 32, 1, DEFAULTS | values)
    weights = sum(part.weight.numel() for part in block.modules() if isinstance(part, nn.Conv2d))
    assert weights == kernel**2 * 16 * ratio * 32 / groups + cheap**2 * (1 - ratio) * 32


@pytest.mark.parametrize(("ratio", "repeats"), [(0.25, 4), (0.5, 2)])
def test_channels_are_shuffled(ratio, repeats):
    block = PhantomConv(8, 16, 1, DEFAULTS | {"phantom_ratio": ratio}).eval()
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(block(x)[:, ::repeats], block.grouped(x))


def test_swapping_convolutions_saves_two_fifths_of_the_parameters():
    phantom, full = (
        Phantom().counts(DEFAULTS | {"block": block}, (3, 32, 32), 10).parameters
        for block in ("phantom", "full")
    )
    assert phantom <= 0.6 * full


def test_a_full_convolution_has_none_of_the_blocks_knobs():
    values = DEFAULTS | {"block": "full", "groups": 4, "phantom_ratio": 0.25, "cheap_kernel": 5}
    assert Phantom().canonical(values) == DEFAULTS | {"block": "full"}
