from typing import ClassVar

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional

from spaces.architectures.families.convformer import ConvFormer, EdgeConvolution
from spaces.architectures.testing import FamilyConformance
from spaces.errors import ConfigError
from spaces.models.export import ExportStage
from spaces.models.torch.folding import folded
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact


class TestConvFormer(FamilyConformance):
    small: ClassVar = {"depth": 1, "width": 16}

    @pytest.fixture
    def family(self):
        return ConvFormer()

    @pytest.fixture
    def input_shape(self):
        return (3, 12, 12)


@pytest.mark.parametrize(("factor", "parameters"), [(2, 291_324), (3, 297_819), (4, 306_912)])
def test_folded_it_has_the_published_number_of_parameters(factor, parameters):
    family = ConvFormer(factor)
    plain = family.defaults() | {"edges": False}
    assert family.counts(plain, (3, 48, 48), 3).parameters == parameters
    network = folded(family.build(family.defaults(), (3, 12, 12), 3))
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_branches_cost_nothing_but_parameters():
    family = ConvFormer()
    with_edges, without = (
        family.counts(family.defaults() | {"edges": edges}, (3, 24, 24), 3) for edges in (True, False)
    )
    assert with_edges.macs == without.macs
    assert with_edges.peak_activation_bytes == pytest.approx(without.peak_activation_bytes, rel=0.1)
    assert with_edges.parameters - without.parameters == 12 * (48 * 9 + 48 + 6 * 48 + 6 * 96)


@pytest.mark.parametrize("kernel", [3, 9])
def test_the_convolution_is_the_sum_of_its_branches(kernel):
    torch.manual_seed(0)
    layer, x = EdgeConvolution(5, kernel), torch.randn(2, 5, 12, 12)
    torch.nn.init.normal_(layer.factors)
    wanted = functional.conv2d(x, layer.weight, layer.bias, padding=kernel // 2, groups=5)
    if kernel > 3:
        wanted = wanted + functional.conv2d(x, layer.small_weight, layer.small_bias, padding=1, groups=5)
    sobel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    for at, edge in enumerate(layer.filters):
        weight = layer.factors[at, :, None, None, None] * edge
        wanted = wanted + functional.conv2d(x, weight, layer.offsets[at], padding=1, groups=5)
    torch.testing.assert_close(layer(x), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.folded()(x), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.filters[1], sobel.T)


def test_export_folds_the_branches_and_keeps_the_weights_names():
    family = ConvFormer()
    torch.manual_seed(0)
    network = family.build(family.defaults() | {"depth": 1, "width": 8}, (3, 12, 12), 3)
    n_folded = sum(p.numel() for p in folded(network).parameters())
    artifact = torch_artifact(network, InputSpec((3, 12, 12)))
    for draft in (False, True):
        made = ExportStage().apply(artifact, {}, StageContext(None, Cache(), draft=draft))
        assert ("export" in made.notes) == draft
        weights = [i for i in made.proto().graph.initializer if "weight" in i.name and len(i.dims) == 4]
        assert {i.name for i in weights} <= network.state_dict().keys()
    floats = [i for i in made.proto().graph.initializer if i.data_type == onnx.TensorProto.FLOAT]
    assert sum(int(np.prod(i.dims)) for i in floats if len(i.dims) > 0) <= n_folded + 6  # and the mean, twice


def test_images_are_enlarged_by_the_factor():
    network = ConvFormer(3).build(ConvFormer().defaults() | {"depth": 1}, (1, 7, 5), 1)
    assert network(torch.rand(2, 1, 7, 5)).shape == (2, 1, 21, 15)


def test_signals_are_refused():
    assert "takes images" in ConvFormer().broken(ConvFormer().defaults(), (6, 128))


@pytest.mark.parametrize("arguments", [{"factor": 0}, {"factor": 1.5}, {"layer_scale": 0}])
def test_settings_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ConfigError, match=r"model\.family"):
        ConvFormer(**arguments)
