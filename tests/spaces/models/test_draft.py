import numpy as np
import pytest
import torch
from torch import nn

from spaces.models import export
from spaces.models.export import ExportStage
from spaces.models.layers import layers
from spaces.models.onnx.ort_session import ort_session
from spaces.stages.artifact import InputSpec, TensorSpec
from spaces.stages.cache import Cache
from spaces.stages.inputs import packed
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact
from spaces.stages.torch_outputs import tensors_of

DRAFT = StageContext(None, Cache(), draft=True)


class Image(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.rows, self.head = nn.Linear(4, 6, bias=False), nn.Linear(6 * 16, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        return self.head(self.rows(x.flatten(2).transpose(1, 2)).flatten(1))


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(4, 3), nn.Linear(5, 2)

    def forward(self, sensor, tokens):
        mean = self.embed(tokens).mean(1)
        return {"mean": mean, "logits": self.head(torch.cat([mean, sensor], 1))}


@pytest.mark.parametrize(
    ("network", "spec"),
    [
        (Image, InputSpec((2, 6, 6))),
        (Text, InputSpec((6,), "tokens", "int64", others=(TensorSpec((2,), "sensor"),))),
    ],
)
def test_a_draft_has_the_network_s_layers_and_outputs(network, spec, monkeypatch):
    monkeypatch.setattr(export, "_from_torch", None)
    artifact = torch_artifact(network(), spec)
    drafted = ExportStage().apply(artifact, {}, DRAFT)
    assert drafted.notes == {"export": {"draft": True}}
    weights = {name for name, p in artifact.model.named_parameters() if p.ndim > 1 and name != "embed.weight"}
    assert {layer.name for layer in layers(drafted.proto())} == weights
    assert drafted.input.tensors[1:] == spec.others
    batch = spec.noise(5)
    found = ort_session(drafted.onnx_bytes).run(None, drafted.input.feeds(batch))
    with torch.no_grad():
        wanted = tensors_of(artifact.model(torch.from_numpy(packed(batch))))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-4, atol=1e-5)


def test_where_the_quick_way_fails_the_export_proper_is_taken(monkeypatch):
    class TakesAnything(Image):
        def forward(self, *x):
            return super().forward(x[0]) if torch.jit.is_tracing() is False else [][0]

    proper = ExportStage().apply(torch_artifact(Image(), InputSpec((2, 6, 6))), {}, DRAFT)
    monkeypatch.setattr(export, "_from_torch", lambda artifact: proper.proto())
    made = ExportStage().apply(torch_artifact(TakesAnything(), InputSpec((2, 6, 6))), {}, DRAFT)
    assert made.notes == {}
