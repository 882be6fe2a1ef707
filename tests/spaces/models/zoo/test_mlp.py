import numpy as np
import pytest
import torch
from torch import nn

from spaces.errors import ConfigError
from spaces.models.base import LoadContext
from spaces.models.export import ExportStage
from spaces.models.testing import ModelSourceConformance
from spaces.models.zoo.mlp import MLP, MLPModel
from spaces.stages.array_split import ArraySplit
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext


def rings(n=120):
    """A split that is not linearly separable: the class is whether a point is far from the centre."""
    x = np.random.default_rng(0).standard_normal((n, 4)).astype(np.float32)
    return ArraySplit(x, (np.linalg.norm(x, axis=1) > 1.8).astype(np.int64))


def small(**more):
    return MLPModel(**{"input_shape": [4], "hidden": [16, 8], "epochs": 40} | more)


class TestMLP(ModelSourceConformance):
    @pytest.fixture
    def source(self):
        return small(epochs=1)

    @pytest.fixture
    def context(self, tmp_path):
        return LoadContext(rings(), tmp_path)


def test_size():
    assert sum(p.numel() for p in MLP().parameters()) == 31 * 64 + 65 * 32 + 33 * 2 == 4_130


@pytest.mark.parametrize(("hidden", "batch_norm"), [((5,), False), ((5, 7, 6), False), ((5, 7), True)])
def test_layers_follow_the_arguments(hidden, batch_norm):
    net = MLP(3, hidden, 4, batch_norm).eval()
    linear = [part for part in net.modules() if isinstance(part, nn.Linear)]
    assert [part.out_features for part in linear] == [*hidden, 4]
    norms = [part for part in net.modules() if isinstance(part, nn.BatchNorm1d)]
    assert [part.num_features for part in norms] == (list(hidden) if batch_norm else [])
    assert all((part.bias is None) == batch_norm for part in linear[:-1])
    assert net(torch.zeros(2, 3)).shape == (2, 4)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_network_learns(tmp_path, batch_norm):
    split = rings()
    artifact = small(batch_norm=batch_norm).load(LoadContext(split, tmp_path))
    with torch.no_grad():
        outputs = artifact.model(torch.from_numpy(split.inputs))
    assert (outputs.argmax(1).numpy() == split.labels).mean() > 0.9


def test_checkpoints_depend_on_widths_and_norm(tmp_path):
    for more in ({}, {"hidden": [16, 9]}, {"batch_norm": True}, {"batch_size": 8}, {"learning_rate": 1e-3}):
        small(epochs=1, **more).load(LoadContext(rings(), tmp_path))
    assert len(list(tmp_path.iterdir())) == 5


def test_several_axes_are_flattened():
    net = MLP(12, (5,), 2).eval()
    x = torch.randn(3, 2, 6)
    assert torch.equal(net(x), net(x.reshape(3, 12)))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_onnx_file_has_equal_outputs_and_layers_named_by_weights(tmp_path, batch_norm):
    import onnxruntime

    artifact = small(epochs=1, batch_norm=batch_norm).load(LoadContext(rings(), tmp_path))
    exported = ExportStage().apply(artifact, {}, StageContext(None, Cache()))
    names = {i.name for i in exported.proto().graph.initializer}
    assert {"hidden.0.linear.weight", "hidden.1.linear.weight", "output.weight"} <= names
    x = rings().inputs
    session = onnxruntime.InferenceSession(exported.onnx_bytes)
    found = session.run(None, {session.get_inputs()[0].name: x})[0]
    with torch.no_grad():
        assert found == pytest.approx(artifact.model(torch.from_numpy(x)).numpy(), abs=1e-4)


@pytest.mark.parametrize("hidden", [[], [0], [8.0], "64", [True]])
def test_invalid_widths_raise(hidden):
    with pytest.raises(ConfigError, match=r"model\.hidden must list positive whole numbers"):
        MLPModel(hidden=hidden)
