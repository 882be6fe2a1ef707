import numpy as np
import onnx
import pytest
import torch

from spaces.architectures.families.shvit import SHViT
from spaces.architectures.testing import FamilyConformance
from spaces.models.export import ExportStage
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact

SIZES = {
    "S1": ((128, 224, 320), (2, 4, 5), 6_330_808),
    "S2": ((128, 308, 448), (2, 4, 5), 11_473_212),
    "S3": ((192, 352, 448), (3, 5, 5), 14_245_273),
    "S4": ((224, 336, 448), (4, 7, 6), 16_588_484),
}
SMALL = {"dim1": 16, "dim2": 28, "dim3": 32, "depth1": 1, "depth2": 1, "depth3": 1, "stem_stride": 4}


class SmallSHViT(SHViT):
    """Defaults that export in seconds."""

    def defaults(self):
        return super().defaults() | SMALL


@pytest.mark.slow  # exports 40 convolutions twice
class TestSHViT(FamilyConformance):
    @pytest.fixture
    def family(self):
        return SmallSHViT()


@pytest.mark.parametrize("size", SIZES)
def test_published_sizes_have_the_published_parameters(size):
    dims, depths, parameters = SIZES[size]
    values = {f"dim{at}": dim for at, dim in enumerate(dims, 1)} | {
        f"depth{at}": depth for at, depth in enumerate(depths, 1)
    }
    assert SHViT().counts(SHViT().defaults() | values, (3, 224, 224), 1000).parameters == parameters


def test_convolutions_fold_their_batch_norms_at_export():
    network = random_statistics(SHViT().build(SHViT().defaults() | SMALL, (3, 16, 16), 4))
    artifact = torch_artifact(network, InputSpec((3, 16, 16)))
    proto = ExportStage().apply(artifact, {}, StageContext(None, Cache(), accelerator="cpu")).proto()
    assert "BatchNormalization" not in {node.op_type for node in proto.graph.node}
    x = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)
    folded = onnx.reference.ReferenceEvaluator(proto).run(None, {"input": x})[0]
    with torch.no_grad():
        unfolded = network(torch.from_numpy(x)).numpy()
    assert np.abs(folded - unfolded).max() <= 1e-5 * max(1.0, np.abs(unfolded).max())


def test_attention_leaves_the_other_channels_as_they_are():
    block = SHViT().build(SHViT().defaults() | SMALL | {"attention_from": 3, "depth3": 1}, (3, 16, 16), 4)
    attention = next(part for part in block.modules() if type(part).__name__ == "PartialAttention").eval()
    attention.project = torch.nn.Identity()
    x = torch.randn(2, 32, 4, 4)
    y = attention(x)
    assert torch.equal(y[:, 6:], x[:, 6:])
    assert not torch.equal(y[:, :6], x[:, :6])


def test_one_head_is_a_softmax_over_all_positions():
    block = SHViT().build(SHViT().defaults() | SMALL, (3, 16, 16), 4)
    attention = next(part for part in block.modules() if type(part).__name__ == "PartialAttention").eval()
    attention.project = torch.nn.Identity()
    x = torch.randn(1, 28, 2, 3)
    q, k, v = attention.qkv(attention.norm(x[:, :6])).flatten(2).split([16, 16, 6], dim=1)
    wanted = [
        sum(w * v[0, :, j] for j, w in enumerate(torch.softmax(q[0, :, i] @ k[0] / 4, 0))) for i in range(6)
    ]
    assert torch.allclose(attention(x)[0, :6].flatten(1), torch.stack(wanted, 1), atol=1e-5)


def test_heads_must_divide_the_channels():
    assert "heads=4 do not divide" in SHViT().broken(
        SHViT().defaults() | {"heads": 4, "dim3": 308}, (3, 64, 64)
    )


def random_statistics(network):
    torch.manual_seed(0)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.normal_(part.bias, 0, 0.3)
    return network.eval()
