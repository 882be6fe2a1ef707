"""Recurrent networks through the stages: pruned, exported, quantized."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from spaces.models.export import ExportStage
from spaces.pruning.prune import PruneStage
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import noise_split
from spaces.stages.torch_artifact import torch_artifact

SHAPE = (4, 3)


class Last(nn.Module):
    """The last step, and the last states of both directions."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.head = kind(3, 16, batch_first=True, bidirectional=True), nn.Linear(64, 3)

    def forward(self, x):
        y, states = self.rnn(x)
        h = states[0] if isinstance(states, tuple) else states
        return self.head(torch.cat([y[:, -1], h[0], h[1]], 1))


def pruned(kind, **values):
    noise, stage = noise_split(SHAPE, 8), PruneStage(n_examples=8, threads=1)
    context = StageContext(noise, Cache(), train=noise, accelerator="cpu")
    made = stage.apply(torch_artifact(Last(kind), InputSpec(SHAPE)), {**stage.defaults(), **values}, context)
    return made, context


def test_half_of_the_units_go():
    made, _ = pruned(nn.LSTM, ratio=0.5, criterion="magnitude_l2")
    notes = made.notes["prune"]
    assert notes["widths"]["rnn.weight_ih_l0_reverse"] == [16, 8]
    assert notes["macs_after"] < 0.5 * notes["macs_before"]
    assert made.model.rnn.hidden_size == 8


def test_a_budget_is_met_and_protected_units_stay():
    made, _ = pruned(nn.GRU, keep=0.6, criterion="disturbed_taylor")
    notes = made.notes["prune"]
    assert notes["macs_after"] <= 0.61 * notes["macs_before"]
    made, _ = pruned(nn.GRU, ratio=0.5, criterion="magnitude_l2", protect=("rnn.*",))
    assert made.model.rnn.hidden_size == 16


@pytest.mark.slow
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_cut_network_is_exported_and_quantized(kind):
    made, context = pruned(kind, keep=0.6, criterion="magnitude_l2")
    exported = ExportStage().apply(made, {}, context)
    quantized = QuantizeStage().apply(exported, {"calibration_images": 8}, context)
    x = np.random.default_rng(0).uniform(-1, 1, (5, *SHAPE)).astype(np.float32)
    with torch.no_grad():
        wanted = made.model(torch.from_numpy(x)).numpy()
    errors = []
    for file in (exported, quantized):
        session = onnxruntime.InferenceSession(file.onnx_bytes, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {file.input.name: x})
        errors.append(float(np.abs(found - wanted).max() / np.abs(wanted).max()))
    assert errors[0] < 1e-5
    assert errors[1] < 0.1
    kinds = {node.op_type for node in quantized.proto().graph.node}
    assert {kind.__name__, "DequantizeLinear"} <= kinds
