"""Budgets of networks with attention or recurrent layers are met by what the exported file computes."""

import numpy as np
import pytest
import torch
from torch import nn

from evaluators.cost.graph.op_graph import op_graph
from evaluators.runtime import run_split
from spaces.models.export import ExportStage
from spaces.pruning.prune import PruneStage
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact

SHAPE = (6, 5)


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(5, 16), nn.Linear(16, 3)
        self.encoder = nn.TransformerEncoderLayer(16, 4, 64, batch_first=True)

    def forward(self, x):
        return self.head(self.encoder(self.embed(x)).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.between, self.head = nn.Linear(5, 24), nn.Linear(24, 4), nn.Linear(4, 3)
        self.rnn = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x):
        return self.head(self.rnn(self.between(self.embed(x).relu()))[0][:, -1])


@pytest.mark.parametrize("network", [Transformer, Recurrent])
def test_the_budget_is_met_by_the_exported_file(network):
    torch.manual_seed(0)
    x = np.random.default_rng(0).standard_normal((4, *SHAPE)).astype(np.float32)
    split = ArraySplit(x, np.arange(4) % 3)
    context = StageContext(split, Cache(), train=split)
    dense = torch_artifact(network(), InputSpec(SHAPE))
    whole = op_graph(ExportStage().apply(dense, {}, context)).macs
    pruned = PruneStage(min_channels=1).apply(dense, {"keep": 0.7}, context)
    exported = ExportStage().apply(pruned, {}, context)
    notes = pruned.notes["prune"]
    assert (notes["macs_before"], notes["macs_after"]) == (whole, op_graph(exported).macs)
    assert notes["macs_after"] / whole == pytest.approx(0.7, abs=0.02)
    got, _ = run_split(exported, split, batch_size=4, threads=1)
    with torch.no_grad():
        np.testing.assert_allclose(got, pruned.model(torch.from_numpy(x)).numpy(), rtol=1e-4, atol=1e-5)
