import pytest
import torch

from spaces.architectures.counting import counts_of
from spaces.architectures.families.funnelnet import FunnelNet, bottleneck_layer
from spaces.architectures.testing import FamilyConformance


class TestFunnelNet(FamilyConformance):
    @pytest.fixture
    def family(self):
        return FunnelNet()

    @pytest.fixture
    def input_shape(self):
        return (2, 64)


@pytest.mark.parametrize(("n_in", "n_out", "kernel"), [(8, 8, 3), (16, 24, 5)])
def test_the_cost_of_a_separable_convolution_is_that_of_the_formula(n_in, n_out, kernel):
    separable, full = (
        counts_of(bottleneck_layer(n_in, n_out, kernel, kind), (n_in, 8, 10)).macs
        for kind in ("separable", "full")
    )
    assert separable / full == pytest.approx(1 / n_out + 1 / kernel**2)


def test_a_signal_without_a_channel_axis_is_one_channel():
    torch.manual_seed(0)
    network = FunnelNet().build(FunnelNet().defaults(), (64,), 3).eval()
    x = torch.randn(2, 64)
    torch.testing.assert_close(network(x), network(x[:, None]))


def test_channels_have_scalograms_of_their_own():
    network = FunnelNet().build(FunnelNet().defaults(), (2, 64), 3).eval()
    seen = []
    network.layers.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    x = torch.randn(3, 2, 64)
    network(x)
    assert seen[0].shape == (3, 2, 32, 64)
    torch.testing.assert_close(seen[0][:, 1], network.front_end(x[:, 1]), rtol=1e-4, atol=1e-5)


def test_images_and_short_signals_are_refused():
    family = FunnelNet()
    assert "takes signals" in family.broken(family.defaults(), (3, 32, 32))
    assert "16 samples are too few for wavelet=morlet" in family.broken(family.defaults(), (16,))
