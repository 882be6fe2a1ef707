from typing import ClassVar

import pytest
import torch

from spaces.architectures.families.femba import FEMBA, Directions
from spaces.architectures.testing import FamilyConformance


class TestFEMBA(FamilyConformance):
    small: ClassVar = {"depth": 1, "embed_dim": 8, "head": "linear"}

    @pytest.fixture
    def family(self):
        return FEMBA()

    @pytest.fixture
    def input_shape(self):
        return (4, 64)


def test_the_tiny_encoder_has_the_published_number_of_parameters():
    family = FEMBA()
    with torch.device("meta"):
        network = family.build(family.defaults(), (22, 1280), 2)
    encoder = [p.numel() for name, p in network.named_parameters() if not name.startswith("classifier")]
    assert sum(encoder) == 7_795_095


@pytest.mark.parametrize("directions", ["add", "multiply"])
def test_with_one_layer_for_both_directions_a_reversed_signal_gives_reversed_outputs(directions):
    torch.manual_seed(0)
    block = Directions(8, directions)
    block.mamba_rev = block.mamba_fwd
    x = torch.randn(2, 9, 8)
    torch.testing.assert_close(block(x.flip(1)).flip(1), block(x))
    torch.testing.assert_close(x.flip(1).flip(1), x, rtol=0, atol=0)


def test_both_directions_let_an_output_depend_on_later_tokens():
    torch.manual_seed(0)
    x = torch.randn(1, 9, 8)
    changed = x.clone()
    changed[:, -1] = 0
    for directions, depends in (("forward", False), ("add", True)):
        block = Directions(8, directions)
        assert bool((block(x)[:, 0] - block(changed)[:, 0]).abs().max() > 1e-6) == depends


def test_a_patch_larger_than_the_signal_is_refused():
    assert "more than the 6 channels" in FEMBA().broken(FEMBA().defaults() | {"patch_channels": 7}, (6, 128))


def test_the_scan_costs_twice_as_much_for_a_signal_of_twice_the_length():
    family = FEMBA()
    short, long = (family.counts(family.defaults(), (6, n), 6).macs for n in (512, 1024))
    assert long / short == pytest.approx(2, rel=0.01)


def test_it_takes_windows_of_six_channels_and_128_samples():
    family = FEMBA()
    torch.manual_seed(0)
    assert family.build(family.defaults(), (6, 128), 6).eval()(torch.randn(2, 6, 128)).shape == (2, 6)
