import numpy as np
import pytest
import torch
from torch import nn

from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import InputSpec
from spaces.stages.torch_artifact import torch_artifact

SHAPE = (1, 8, 8)


class Tiny(nn.Module):
    """Two convolutions, dropout (which draws from torch's global generator) and a linear layer."""

    def __init__(self, width=6, n_classes=3):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4, 1)
        self.drop = nn.Dropout(0.1)
        self.linear = nn.Linear(4, n_classes)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        x = self.drop(self.conv3(nn.functional.max_pool2d(x, 2)))
        return self.linear(x.mean((2, 3)))


@pytest.fixture(autouse=True)
def one_thread():
    """For networks this small, synchronising threads costs more than they save."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny():
    """Makes the network of a width, with weights drawn from a seed."""

    def make(width=6, seed=0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Tiny(width).eval()

    return make


@pytest.fixture
def split():
    """45 images of three classes: a bright row, column or corner in noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(45, dtype=np.int64) % 3
    inputs = rng.normal(0, 0.3, (45, *SHAPE)).astype(np.float32)
    inputs[labels == 0, :, 2] += 1
    inputs[labels == 1, :, :, 2] += 1
    inputs[labels == 2, :, :3, :3] += 1
    return ArraySplit(inputs, labels)


@pytest.fixture
def student(tiny):
    """The network after a cut of its second convolution."""
    return torch_artifact(tiny(width=4, seed=1), InputSpec(SHAPE))


@pytest.fixture
def dense(tiny):
    """The network before."""
    return torch_artifact(tiny(), InputSpec(SHAPE))
