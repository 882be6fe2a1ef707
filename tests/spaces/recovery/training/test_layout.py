"""Training in contiguous layout: torch 2.13 corrupts memory in the backward pass of a channels-last 1x1 convolution."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from spaces.pruning.cutting.examples import examples_of
from spaces.recovery.training.optimization.recipe import Recipe
from spaces.recovery.training.training import train
from spaces.stages.array_split import ArraySplit
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext

SIZE, N = 96, 72


def moved_axes(split):
    """Returns the split as a transform yields it that moves the channels to the front without a copy."""

    class Moved(ArraySplit):
        def _inputs(self, raw):
            return np.moveaxis(raw, -1, 1)

    return Moved(np.ascontiguousarray(np.moveaxis(split.inputs, 1, -1)), split.labels)


@pytest.mark.parametrize("channels_last_module", [False, True])
def test_inputs_weights_and_gradients_are_contiguous(tiny, split, channels_last_module):
    split, module = moved_axes(split), tiny()
    split = type(split)(split.raw.repeat(3, -1), split.labels)
    module.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
    if channels_last_module:
        module.to(memory_format=torch.channels_last)
    seen = []

    def loss(outputs, batch):
        seen.append(batch.inputs.is_contiguous())
        seen.extend(p.is_contiguous() for p in module.parameters())
        return nn.functional.cross_entropy(outputs, batch.labels)

    context = StageContext(None, Cache(), train=split, accelerator="cpu")
    train(module, split, Recipe(1, threads=1), loss=loss, context=context, stage="test", key=None)
    assert seen
    assert all(seen)
    assert all(p.is_contiguous() for p in module.parameters())
    assert examples_of(context, 8, "knob").inputs.is_contiguous()


def cross_entropy(outputs, batch):
    return nn.functional.cross_entropy(outputs, batch.labels)


def test_a_strided_pointwise_convolution_survives():
    """In a process of its own: what fails there ends the process."""
    code = f"import runpy; runpy.run_path({str(Path(__file__))!r})['strided']()"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path.cwd(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def strided():
    """Trains a network as it is after a cut of RepVGG; its gradients equal those without oneDNN."""
    rng = np.random.default_rng(0)
    split = ArraySplit(rng.normal(size=(N, 3, SIZE, SIZE)).astype("f"), np.arange(N, dtype=np.int64) % 5)
    context = StageContext(None, Cache(), train=split, accelerator="cpu")
    trained = []
    for enabled in (True, False):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(3, 25, 1, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(25, 5)
        )
        with torch.backends.mkldnn.flags(enabled=enabled):
            train(module, split, Recipe(2, 36), loss=cross_entropy, context=context, stage="test", key=None)
        trained.append(module)
    for ours, plain in zip(trained[0].parameters(), trained[1].parameters(), strict=True):
        torch.testing.assert_close(ours, plain)
