"""Networks with several inputs, token ids, several outputs and one logit: from the file to the front."""

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch

NETS = """
import torch
from torch import nn


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.first, self.last = nn.Embedding(50, 8), nn.Linear(8, 16), nn.Linear(16, 1)

    def forward(self, attention_mask, input_ids):  # not in the config's order
        mask = attention_mask[..., None].float()
        mean = (self.embed(input_ids) * mask).sum(1) / mask.sum(1)
        return {"hidden": mean, "logit": self.last(torch.relu(self.first(mean)))}
"""
SHAPES = "{input_ids: [6], attention_mask: [6]}"


@pytest.fixture
def text(tmp_path, monkeypatch):
    """Writes arrays and a checkpoint, and returns inputs and logits; labels are the network's own, so that its accuracy is 100 %."""
    (tmp_path / "io_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    import io_nets

    rng = np.random.default_rng(0)
    inputs = {
        "input_ids": rng.integers(0, 50, (300, 6)),
        "attention_mask": (np.arange(6) < rng.integers(1, 7, (300, 1))).astype(np.int64),
    }
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = io_nets.Text().eval()
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        network.last.bias -= network(**tensors)["logit"].median()
        logits = network(**tensors)["logit"].numpy()
    np.savez(tmp_path / "data.npz", **inputs, y=(logits[:, 0] > 0).astype(int))
    torch.save(network.state_dict(), tmp_path / "net.pt")
    return inputs, logits


@pytest.mark.parametrize(
    "stages",
    [
        ["export", "quantize"],
        pytest.param(["prune", "recover", "export", "quantize"], marks=pytest.mark.slow),
    ],
    ids="-".join,
)
def test_token_ids_and_a_mask_to_one_logit_of_two_outputs(paredown, text, tmp_path, stages):
    space = "space=quantize" if stages[0] == "export" else "space=prune_quantize"
    ran = paredown(
        "model=torch", "model.cls=io_nets.Text", "model.checkpoint=net.pt", "trusted_modules=[io_nets]",
        f"model.input_shape={SHAPES}", "model.input_dtype=int64", "task=npz", "task.root=data.npz",
        f"task.input_shape={SHAPES}", "task.n_classes=2", "task.calibration=40", "task.validation=80", "task.test=80",
        f"stage=[{','.join(stages)}]", space, *(["space.recover.epochs=1"] if "recover" in stages else []),
        "space.quantize.weight_bits=8", "study.n_trials=2", "sampler=random", "knowledge=none", "device=[host,stm32h743]",
        "objective=accuracy_latency_size",
        "objective.constraints.drop.max=100", "evaluator.latency.max_seconds=0.01", "study.name=text",
        "evaluator.accuracy.stop_early=false",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    rows = pd.read_csv(tmp_path / "outputs/text/trials.csv")
    assert set(rows["state"]) == {"complete"}
    report = (tmp_path / "outputs/text/report.html").read_text()
    assert "the model has 2 outputs: logit is judged" in report
    assert "class 1 is where logit is above 0" in report

    inputs, logits = text
    for path in (tmp_path / "outputs/text/models").iterdir():
        session = onnxruntime.InferenceSession(path)
        assert {i.name: i.type for i in session.get_inputs()} == dict.fromkeys(inputs, "tensor(int64)")
        assert [o.name for o in session.get_outputs()] == ["hidden", "logit"]
        assert session.run(["logit"], inputs)[0].shape == logits.shape
    baseline = pd.read_csv(tmp_path / "outputs/text/pareto.csv")
    assert (baseline["metric.top1"] > 40).all()
