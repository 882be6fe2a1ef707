import numpy as np
import onnx
import pytest
import torch

from spaces.architectures.families.resnet import ResNet
from spaces.architectures.norm_free import GAIN, standardised
from spaces.architectures.testing import FamilyConformance
from spaces.errors import StageError
from spaces.models.export import ExportStage
from spaces.models.zoo.cifar_resnet import CifarResNet
from spaces.pruning.prune import PruneStage
from spaces.recovery.train import TrainStage
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact

SHAPE = (3, 8, 8)


class TestResNet(FamilyConformance):
    @pytest.fixture
    def family(self):
        return ResNet()

    @pytest.fixture
    def value_sets(self):
        return [{"norm": "none_ws", "stages": 2}]


class TestWithoutNormalisation(TestResNet):
    """The file of its default network must compute what torch does, too."""

    @pytest.fixture
    def family(self):
        return NormFree()

    @pytest.fixture
    def value_sets(self):
        return []


class NormFree(ResNet):
    def defaults(self):
        return super().defaults() | {"norm": "none_ws", "width": 8, "stages": 2}


def test_mlperf_tiny_reference_has_the_published_costs():
    """Keras counts 78,666 values: 480 running means and variances, and 240 biases in front of a BatchNorm, more than these."""
    counts = ResNet().counts(ResNet().defaults(), (3, 32, 32), 10)
    assert counts.parameters == 78_666 - 480 - 240
    assert counts.macs == 12_501_632


@pytest.mark.parametrize(("depth", "layers"), [(3, 20), (5, 32)])
def test_padded_shortcuts_make_the_networks_of_the_paper(depth, layers):
    values = ResNet().defaults() | {"depth": depth, "shortcut": "pad"}
    published = sum(p.numel() for p in CifarResNet(layers).parameters())
    assert ResNet().counts(values, (3, 32, 32), 10).parameters == published


def test_filters_have_mean_0_and_a_fixed_norm():
    made = standardised(torch.randn(6, 4, 3, 3) * 5 + 2)
    assert torch.allclose(made.mean(dim=(1, 2, 3)), torch.zeros(6), atol=1e-6)
    assert torch.allclose(made.var(dim=(1, 2, 3), correction=0), torch.full((6,), GAIN**2 / 36), rtol=1e-3)


def test_without_normalisation_a_block_starts_as_its_shortcut():
    block = norm_free(depth=2)[3]
    x = torch.rand(2, 8, 8, 8)
    assert torch.equal(block(x), x)


def test_without_normalisation_the_file_has_plain_convolutions_and_computes_what_training_does():
    network = norm_free(factor=0.7)
    artifact = torch_artifact(network, InputSpec(SHAPE))
    proto = ExportStage().apply(artifact, {}, context()).proto()
    names = {node.op_type for node in proto.graph.node}
    assert names == {"Conv", "Relu", "Add", "ReduceMean", "Gemm"}
    x = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)
    computed = onnx.reference.ReferenceEvaluator(proto).run(None, {"input": x})[0]
    with torch.no_grad():
        trained = network.train()(torch.from_numpy(x)).numpy()
    assert np.abs(computed - trained).max() < 1e-4


def test_without_normalisation_it_trains_at_batch_size_1():
    artifact = torch_artifact(norm_free(), InputSpec(SHAPE))
    stage = TrainStage(threads=1)
    values = stage.canonical(artifact, stage.defaults() | {"epochs": 3, "batch_size": 1}, context())
    trained = stage.apply(artifact, values, context()).model
    split = context().train
    with torch.no_grad():
        guessed = trained(torch.from_numpy(split.inputs)).argmax(1).numpy()
    assert (guessed == split.labels).mean() > 0.9


def test_batches_of_one_are_refused_with_batch_norm():
    artifact, stage = torch_artifact(norm_free(norm="bn"), InputSpec(SHAPE)), TrainStage(threads=1)
    with pytest.raises(
        StageError, match=r"train\.batch_size=1 needs a network without BatchNorm, unlike 0\.1"
    ):
        stage.canonical(artifact, stage.defaults() | {"batch_size": 1}, context())


@pytest.mark.parametrize("norm", ["gn", "none_ws"])
def test_bn_gamma_is_refused_without_batch_norm(norm):
    artifact, stage = torch_artifact(norm_free(norm=norm, factor=0.7), InputSpec(SHAPE)), PruneStage()
    values = stage.defaults() | {"criterion": "bn_gamma", "ratio": 0.5}
    with pytest.raises(StageError, match="bn_gamma needs a BatchNorm"):
        stage.apply(artifact, stage.canonical(artifact, values, context()), context())


def norm_free(depth=1, norm="none_ws", factor=0.0):
    torch.manual_seed(0)
    values = ResNet().defaults() | {"norm": norm, "width": 8, "stages": 2, "depth": depth}
    network = ResNet().build(values, SHAPE, 2)
    for name, parameter in network.named_parameters():
        if name.endswith("conv2.factor"):
            parameter.data.fill_(factor)
    return network


def context():
    """Images whose classes differ in their brightness."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 64)
    inputs = (rng.normal(size=(64, *SHAPE)) + 2 * labels[:, None, None, None] - 1).astype(np.float32)
    split = ArraySplit(inputs, labels)
    return StageContext(split, Cache(), train=split, accelerator="cpu")
