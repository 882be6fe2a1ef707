"""Modules that torch's exporter takes only by detours, and modules that it takes by none."""

import logging
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from spaces.errors import StageError
from spaces.models.export import ExportStage
from spaces.models.exporters import to_onnx as ways
from spaces.models.exporters.interface import Interface
from spaces.models.layers import layers
from spaces.models.testing import assert_exported_form, outputs_of
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact


class BiasedAttention(nn.Module):
    """Attention with a bias: decomposed for ONNX, its outputs have other strides, and `reshape` was traced as a view."""

    def __init__(self):
        super().__init__()
        self.qkv, self.bias = nn.Linear(8, 24), nn.Parameter(torch.randn(1, 2, 4, 4))

    def forward(self, x):
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias).transpose(1, 2).reshape(n, t, c)


class Windows(nn.Module):
    """Windows put together again: `int` of the number of windows makes the batch size a constant."""

    def __init__(self):
        super().__init__()
        self.f = nn.Linear(4, 4)

    def forward(self, x):
        windows = self.f(x.view(x.shape[0], 2, 2, 4).reshape(-1, 2, 4))
        n = int(windows.shape[0] / 2)
        return windows.view(n, 2, 2, 4).permute(0, 2, 1, 3).reshape(n, 4, 4).flatten(1)


class State(nn.Module):
    """A cell's first state, of as many rows as the batch has."""

    def __init__(self):
        super().__init__()
        self.cell, self.first = nn.GRUCell(4, 5), nn.Parameter(torch.randn(1, 5))

    def forward(self, x):
        state = self.first.expand(int(x.shape[0] * 1.0), -1)
        for i in range(x.shape[1]):
            state = self.cell(x[:, i], state)
        return torch.cat([state, torch.zeros(int(x.shape[0] * 1.0), 1)], 1)


DETOURS = [(BiasedAttention, (4, 8)), (Windows, (16,)), (State, (3, 4))]


def exported(module, shape):
    artifact = torch_artifact(module, InputSpec(shape))
    return artifact, ExportStage().apply(artifact, {}, StageContext(None, Cache()))


@pytest.mark.parametrize(("kind", "shape"), DETOURS)
def test_outputs_are_equal_for_every_batch_size(kind, shape, capfd):
    torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        artifact, file = exported(kind(), shape)
    assert ([str(w.message) for w in caught], capfd.readouterr()) == ([], ("", ""))
    assert_exported_form(file)
    for n in (1, 3, 7):
        x = np.random.default_rng(n).standard_normal((n, *shape)).astype(np.float32)
        np.testing.assert_allclose(outputs_of(file, x), outputs_of(artifact, x), rtol=1e-4, atol=1e-5)


def test_the_older_exporter_is_the_last_way(monkeypatch):
    def fails(*_):
        raise RuntimeError("no way")

    monkeypatch.setattr(ways, "_dynamic", fails)
    monkeypatch.setattr(ways, "_DETOURS", (fails, ways.torchscript_export))
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    ).eval()
    artifact, file = exported(net, (2, 4, 4))
    assert_exported_form(file)
    assert [layer.name for layer in layers(file.proto())] == ["0.weight", "4.weight"]
    assert [o.version for o in file.proto().opset_import if o.domain == ""] == [21]
    x = np.random.default_rng(0).standard_normal((5, 2, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(outputs_of(file, x), outputs_of(artifact, x), rtol=1e-4, atol=1e-5)


class Inside(nn.Module):
    """A network of one part."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, x):
        return self.part(x)


class Branches(nn.Module):
    def forward(self, x):
        return x.relu() if x.sum() > 0 else x


class SingularValues(nn.Module):
    def forward(self, x):
        return torch.linalg.svdvals(x)


class Groups(nn.Module):
    """Other operations for other batch sizes."""

    def forward(self, x):
        return x * 2 if int(x.shape[0] * 1.0) == 2 else x.relu()


REFUSALS = [
    (Branches(), (3,), "layer part (Branches): what it computes depends on values of its input"),
    (nn.Linear(5, 2), (3,), "layer part (Linear): it does not run on inputs of shape (2, 3): mat1 and mat2"),
    (SingularValues(), (3, 3), "layer part (SingularValues): the operator _linalg_svd has no ONNX form"),
    (Groups(), (3,), "the batch size is built into its graph"),
]


@pytest.mark.parametrize(("part", "shape", "reason"), REFUSALS)
def test_refusals_are_one_sentence_that_names_the_layer(part, shape, reason, capfd):
    with pytest.raises(StageError) as caught:
        exported(Inside(part), shape)
    message = str(caught.value)
    assert message.startswith(f"export: torch cannot export Inside: {reason}")
    assert not set(message) & {"\n", "\x1b"}
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("torch.onnx").level == logging.NOTSET


@pytest.mark.parametrize("way", [ways._dynamic, *ways._DETOURS])
def test_inputs_in_another_order_than_the_arguments_keep_their_names(way):
    class Two(nn.Module):
        def forward(self, second, first):
            return second.sum(1) - 2 * first

    def batch(n):
        return (), {"first": torch.zeros(n, 4), "second": torch.zeros(n, 3, 4)}

    with ways.quiet():
        proto = ways._checked(way, Two().eval(), Interface(batch, ["first", "second"], ["out"]))
    assert [i.name for i in proto.graph.input if i.type.tensor_type.shape.dim[1].dim_value == 4] == ["first"]
