from pathlib import Path

import numpy as np
import pytest
import torch

from evaluators.task.tasks.classification.npz import NpzTask
from spaces.errors import ConfigError
from spaces.models.base import LoadContext
from spaces.models.testing import ModelSourceConformance
from spaces.models.zoo.har_cnn import HarCNN, HarCNNModel
from spaces.stages.array_split import ArraySplit

DATA = Path(__file__).parents[5] / "shared/data"


def waves(n=96, n_channels=2, length=32, n_classes=3):
    """A split whose class is the frequency of a sine wave."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % n_classes
    time = np.arange(length) / length
    phase = rng.uniform(0, 2 * np.pi, (n, n_channels, 1))
    x = np.sin(2 * np.pi * (1 + 3 * labels[:, None, None]) * time + phase)
    return ArraySplit(x.astype(np.float32), labels)


def small(**more):
    return HarCNNModel(
        **{"n_classes": 3, "input_shape": [2, 32], "widths": [8, 12], "strides": [2, 1], "epochs": 12} | more
    )


class TestHarCNN(ModelSourceConformance):
    @pytest.fixture
    def source(self):
        return small(epochs=1)

    @pytest.fixture
    def context(self, tmp_path):
        return LoadContext(waves(), tmp_path)


def test_size():
    assert sum(p.numel() for p in HarCNN().parameters()) == 24_678


@pytest.mark.parametrize(
    ("widths", "strides", "kernel_size"),
    [((4,), (1,), 1), ((4, 6), (2, 3), 3), ((4, 6, 8, 10), (1, 2, 1, 2), 7)],
)
def test_widths_strides_and_kernel_size(widths, strides, kernel_size):
    net = HarCNN(5, 3, widths, strides, kernel_size).eval()
    inputs = (3, *widths)
    weights = sum(kernel_size * n * m + 2 * m for n, m in zip(inputs, widths, strict=False))
    assert sum(p.numel() for p in net.parameters()) == weights + 5 * (widths[-1] + 1)
    lengths = []
    for block in net.blocks:
        block.register_forward_hook(lambda _, __, y: lengths.append(y.shape[-1]))
    assert net(torch.zeros(2, 3, 24)).shape == (2, 5)
    wanted = 24
    for found, stride in zip(lengths, strides, strict=True):
        wanted = -(-wanted // stride)
        assert found == wanted


def test_the_network_learns(tmp_path):
    split = waves()
    artifact = small().load(LoadContext(split, tmp_path))
    with torch.no_grad():
        outputs = artifact.model(torch.from_numpy(split.inputs))
    assert (outputs.argmax(1).numpy() == split.labels).mean() > 0.9


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"input_shape": [6]}, r"model.input_shape must be \[channels, time\]"),
        ({"kernel_size": 4}, "model.kernel_size must be an odd whole number, not 4"),
        ({"widths": []}, "model.widths must list positive whole numbers"),
        ({"strides": [2, 0]}, r"model.strides must list positive whole numbers, not \[2, 0\]"),
        ({"strides": [2]}, r"one number for each convolution, not \[8, 12\] and \[2\]"),
        ({"epochs": 0}, "model.epochs must be"),
    ],
)
def test_invalid_values_name_the_key(values, text):
    with pytest.raises(ConfigError, match=text):
        small(**values)


@pytest.mark.slow
def test_accuracy_on_activities_of_nine_unseen_people(tmp_path):
    path = DATA / "har/hapt_windows128.npz"
    if not path.is_file():
        pytest.skip("the human-activity windows are absent")
    scaled = {"mean": [0.8, 0.0, 0.1, 0.0, 0.0, 0.0], "std": [0.4]}
    task = NpzTask(str(path), [6, 128], 6, group="subject", calibration=2, validation=7, test=9, **scaled)
    splits = task.splits()
    artifact = HarCNNModel().load(LoadContext(splits.train, tmp_path))
    inputs, labels = next(splits.test.batches(len(splits.test)))
    with torch.no_grad():
        right = artifact.model(torch.from_numpy(inputs)).argmax(1).numpy() == labels
    assert right.mean() > 0.93  # 93 % to 98 %, depending on the nine people
