"""Buffers that are no part of the state dict are cut with their channels, and kept in the cache."""

import pytest
import torch
from torch import nn

from spaces.pruning.prune import PruneStage
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache
from spaces.stages.pipeline import Pipeline
from spaces.stages.stage import StageContext
from spaces.stages.testing import noise_split
from spaces.stages.torch_artifact import torch_artifact
from spaces.stages.torch_file import packed, unpacked


class Scaled(nn.Module):
    def __init__(self, persistent):
        super().__init__()
        self.first, self.second, self.linear = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 3), nn.Linear(8, 5)
        self.register_buffer("scale", torch.linspace(1, 2, 16)[None, :, None, None], persistent=persistent)

    def forward(self, x):
        x = torch.relu(self.second(torch.relu(self.first(x)) * self.scale))
        return self.linear(x.mean((2, 3)))


def artifact(persistent):
    torch.manual_seed(0)
    return torch_artifact(Scaled(persistent).eval(), InputSpec((3, 8, 8)))


def cut(start):
    noise = noise_split((3, 8, 8))
    stage = PruneStage(threads=1)
    context = StageContext(noise, Cache(), train=noise, accelerator="cpu")
    return Pipeline([stage]).run(start, {"prune": {**stage.defaults(), "ratio": 0.5}}, context).model


def test_a_buffer_is_cut_whether_it_is_stored_or_not():
    stored, other = cut(artifact(True)), cut(artifact(False))
    assert stored.first.out_channels == other.first.out_channels == 8
    torch.testing.assert_close(stored.scale, other.scale)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(stored(x), other(x))


@pytest.mark.parametrize("persistent", [True, False])
def test_the_cut_network_is_cached(persistent):
    start = artifact(persistent)
    made = torch_artifact(cut(start), start.input)
    data = packed(made, start)
    assert data is not None
    assert unpacked(data, start).digest == made.digest
