"""A network and images without labels, as most who have to compress one have: from the command line to the file."""

import json
import warnings

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn

from search.cli.app import run_command


def network(path, n_outputs):
    """An ONNX file of a convolutional network for 16 x 16 images, with seeded weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, n_outputs)
        )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            net.eval(), (torch.zeros(1, 3, 16, 16),), path, dynamo=False, input_names=["x"], output_names=["y"],
            dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
        )  # fmt: skip


@pytest.fixture
def quantize(tmp_path, monkeypatch, capsys):
    """Runs `paredown quantize` in the test's folder; returns what it printed, and the summary."""
    monkeypatch.chdir(tmp_path)

    def run(data, *overrides):
        settings = (
            "tracker=none",
            "sampler=random",
            "knowledge=none",
            "cache_dir=cache",
            "space.quantize.weight_bits=8",
        )
        limits = ("objective.constraints.drop.max=100", "study.name=net")
        words = [
            "quantize",
            "net.onnx",
            "--data",
            data,
            "--device",
            "stm32h743",
            *settings,
            *limits,
            *overrides,
        ]
        assert run_command(words) == 0, capsys.readouterr().err
        summary = json.loads((tmp_path / "outputs/net/summary.json").read_text())
        return " ".join(capsys.readouterr().out.split()), summary

    return run


def test_images_without_labels(quantize, tmp_path):
    network(tmp_path / "net.onnx", 4)
    (tmp_path / "photos" / "june").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(100):
        colours = rng.integers(0, 256, (2, 3, 3), dtype=np.uint8)
        folder = tmp_path / "photos" / ("june" * (i % 2))
        Image.fromarray(colours).resize((30, 20)).save(folder / f"{i}.png")
    printed, summary = quantize("photos", "study.n_trials=3")
    assert (
        "fidelity is no accuracy, it is the share of largest outputs that are the uncompressed network's"
        in printed
    )
    assert summary["baseline"]["metrics"]["fidelity"] == 100
    assert summary["baseline"]["metrics"]["test_fidelity"] == 100
    assert 50 < summary["best"]["metrics"]["test_fidelity"] <= 100
    onnx.checker.check_model(
        onnx.load(tmp_path / f"outputs/net/models/trial_{summary['best']['number']}.onnx")
    )


def test_arrays_without_labels_are_compared_as_numbers(quantize, tmp_path):
    network(tmp_path / "net.onnx", 6)
    inputs = np.random.default_rng(0).normal(size=(100, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=inputs)
    printed, summary = quantize("x.npz", "study.n_trials=2")
    assert "share of the variance" in printed
    assert 90 < summary["best"]["metrics"]["fidelity"] < 100
