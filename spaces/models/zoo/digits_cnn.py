"""A small network for 8x8 digits: trained on first use, in seconds, then kept."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from spaces.artifact import Artifact, InputSpec, Split
from spaces.cache import digest_of, write_atomic
from spaces.errors import InputError
from spaces.models.base import LoadContext
from spaces.models.checkpoint import CheckpointModel
from spaces.models.state_dict import load_state_dict, read_state_dict
from spaces.models.torch_artifact import torch_artifact

EPOCHS = 15
BATCH_SIZE = 64
LEARNING_RATE = 1e-2


class DigitsCNNModel(CheckpointModel):
    """The digits network, with a checkpoint of the user's or one that is trained here.

    Args:
        checkpoint: A checkpoint of this network; None trains it on the task's train split.
        n_classes: Number of outputs.
        input_shape: Shape of one example, `(channels, height, width)`.
        epochs: Passes over the train split.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        n_classes: int = 10,
        input_shape: Sequence[int] = (1, 8, 8),
        epochs: int = EPOCHS,
    ) -> None:
        super().__init__(checkpoint, input_shape)
        self.n_classes, self.epochs = n_classes, epochs

    def build(self) -> nn.Module:
        """Returns the network with random weights."""
        return DigitsCNN(self.n_classes, self.input_shape[0])

    def load(self, context: LoadContext) -> Artifact:
        """Returns the network; trains it and keeps the checkpoint in `context.cache_dir` if there is none yet.

        Raises:
            InputError: The checkpoint does not fit, or there is nothing to train on.
        """
        if self.checkpoint is not None:
            return super().load(context)
        if context.train is None or len(context.train) == 0:
            raise InputError("digits_cnn is trained on first use, but the task has no train split")
        module = self.build_seeded(context.seed)
        path = context.cache_dir / f"digits_cnn-{self._digest(module, context.train, context.seed)}.pt"
        if not _read_into(module, path):
            with _one_thread():
                train(module, context.train, self.epochs, context.seed)
            _write(module, path)
        return torch_artifact(module, InputSpec(self.input_shape))

    def _digest(self, module: nn.Module, train_split: Split, seed: int) -> str:
        recipe = (self.epochs, BATCH_SIZE, LEARNING_RATE)
        return digest_of(train_split.digest, seed, repr(module), self.input_shape, recipe)


class DigitsCNN(nn.Module):
    """`(n, n_channels, 8, 8)` float32 in [0, 1] -> `(n, n_classes)` logits; 24,058 parameters for 10 classes."""

    def __init__(self, n_classes: int = 10, n_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(64)
        self.linear = nn.Linear(64, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.max_pool2d(functional.relu(self.bn2(self.conv2(x))), 2)
        x = functional.relu(self.bn3(self.conv3(x)))
        x = torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1)
        return self.linear(x)  # type: ignore[no-any-return]


def train(module: nn.Module, split: Split, epochs: int, seed: int) -> None:
    """Trains in place with Adam under a one-cycle learning rate (Smith & Topin 2017, arXiv 1708.07120).

    Args:
        module: The network; left in eval mode.
        split: The train split.
        epochs: Passes over it.
        seed: Seed of the order of examples.
    """
    batches = list(split.batches(1024))
    x = torch.from_numpy(np.concatenate([b[0] for b in batches]))  # (n, *input_shape)
    y = torch.from_numpy(np.concatenate([b[1] for b in batches]))  # (n,)
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * -(-len(y) // BATCH_SIZE)
    optimizer = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    module.train()
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(y), generator=generator), BATCH_SIZE):
            if len(rows) == 1 and len(y) > 1:  # BatchNorm has no variance to go by
                continue
            optimizer.zero_grad()
            torch.autograd.backward(functional.cross_entropy(module(x[rows]), y[rows]))
            optimizer.step()
            schedule.step()
    module.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Trains alike on any number of cores; for a network this small, threads that wait cost more than they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _read_into(module: nn.Module, path: Path) -> bool:
    """Loads a kept checkpoint; False if there is none, or a damaged one (it is then replaced)."""
    try:
        load_state_dict(module, read_state_dict(path), path)
    except InputError:
        return False
    return True


def _write(module: nn.Module, path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    write_atomic(path, buffer.getvalue())
