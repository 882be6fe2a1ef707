from typing import ClassVar

import pytest
import torch

from spaces.architectures.counting import counts_of
from spaces.architectures.families.spike_vit import SpikeViT
from spaces.architectures.spiking import spike_energy
from spaces.architectures.testing import FamilyConformance


class TestSpikeViT(FamilyConformance):
    small: ClassVar = {"depth": 1}

    @pytest.fixture
    def family(self):
        return SpikeViT()

    @pytest.fixture
    def input_shape(self):
        return (3, 16, 16)


def test_every_multiplication_of_the_network_is_counted_and_only_the_ends_are_not_of_spikes():
    torch.manual_seed(0)
    network = SpikeViT().build(SpikeViT().defaults(), (3, 16, 16), 10)
    energy = spike_energy(network, torch.randn(4, 3, 16, 16))
    assert energy.analogue_macs + energy.spiking_macs == counts_of(network, (3, 16, 16)).macs
    patches, head = 16 * 3 * 4 * 4 * 64, 64 * 10
    assert energy.analogue_macs == patches + head
    assert 0 < energy.spikes_per_value < 4


def test_heads_that_do_not_divide_the_width_are_refused():
    values = SpikeViT().defaults() | {"width": 66}
    assert "heads=4 do not divide width=66" in SpikeViT().broken(values, (3, 16, 16))


def test_a_patch_larger_than_the_image_is_refused():
    assert "patch=16 is larger" in SpikeViT().broken(SpikeViT().defaults() | {"patch": 16}, (1, 8, 8))
