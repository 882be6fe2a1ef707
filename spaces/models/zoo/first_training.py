"""Small networks that are trained on first use, in seconds; their checkpoints are stored."""

import io
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from spaces.code_digest import code_digest
from spaces.digest import digest_of
from spaces.errors import ConfigError, InputError
from spaces.models.base import LoadContext
from spaces.models.checkpoint import CheckpointModel
from spaces.models.torch.state_dict import load_state_dict, read_state_dict
from spaces.stages.artifact import Artifact, InputSpec, Split
from spaces.stages.cache import write_atomic
from spaces.stages.inputs import packed
from spaces.stages.module_identity import identity
from spaces.stages.torch_artifact import torch_artifact

READ_BATCH = 1024  # examples that are read from the split together


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of the training.

    Attributes:
        epochs: Passes over the train split.
        batch_size: Examples a step.
        learning_rate: Highest learning rate of the one-cycle schedule.
    """

    epochs: int
    batch_size: int = 64
    learning_rate: float = 1e-2

    def __post_init__(self) -> None:
        """Raises ConfigError if a value makes no sense."""
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigError(f"model.{name} must be a whole number from 1 on, not {value!r}")
        if type(self.learning_rate) not in (int, float) or not self.learning_rate > 0:
            raise ConfigError(f"model.learning_rate must be a number above 0, not {self.learning_rate!r}")


class FirstTrainedModel(CheckpointModel):
    """A network with a user's checkpoint, or trained on first use on the task's train split.

    Args:
        checkpoint: A checkpoint of this network; None trains it.
        input_shape: Shape of one example, without the batch axis.
        recipe: Hyperparameters of the training.
    """

    name: ClassVar[str]

    def __init__(self, checkpoint: str | None, input_shape: Sequence[int], recipe: Recipe) -> None:
        super().__init__(checkpoint, input_shape)
        self.recipe = recipe

    @abstractmethod
    def build(self) -> nn.Module:
        """Returns the network with random weights."""

    def load(self, context: LoadContext) -> Artifact:
        """Returns the network; trains it and keeps the checkpoint in `context.cache_dir` if there is none yet.

        With `context.trains` false it is not trained.

        Raises:
            InputError: The checkpoint does not fit, or there is nothing to train on.
        """
        if self.checkpoint is not None:
            return super().load(context)
        if context.train is None or len(context.train) == 0:
            raise InputError(f"{self.name} is trained on first use, but the task has no train split")
        module = self.build_seeded(context.seed)
        _check_fit(module, context.train, self.input_shape)
        path = context.cache_dir / f"{self.name}-{self._digest(module, context.train, context.seed)}.pt"
        if not _read_into(module, path) and context.trains:
            with _one_thread():
                train(module, context.train, self.recipe, context.seed)
            _write(module, path)
        return torch_artifact(module, InputSpec(self.input_shape))

    def _digest(self, module: nn.Module, split: Split, seed: int) -> str:
        code = code_digest(type(self))  # the training code
        return digest_of(split.digest, seed, identity(module), code, self.input_shape, astuple(self.recipe))


def _check_fit(module: nn.Module, split: Split, input_shape: tuple[int, ...]) -> None:
    """Raises InputError if the network cannot be trained on the split."""
    found = packed(next(iter(split.batches(1, 1)))[0]).shape[1:]
    if found != input_shape:
        raise InputError(
            f"model.input_shape is {list(input_shape)}, but the task's examples are {list(found)}"
        )
    with torch.no_grad():
        n_outputs = module.eval()(torch.zeros(1, *input_shape)).shape[1]
    labels = np.concatenate([labels for _, labels in split.batches(READ_BATCH)])
    if labels.min() < 0 or labels.max() >= n_outputs:
        raise InputError(
            f"the network has {n_outputs} outputs, but the task's labels lie in {labels.min()}..{labels.max()}: "
            "model.n_classes must be the task's number of classes"
        )


def train(module: nn.Module, split: Split, recipe: Recipe, seed: int) -> None:
    """Trains in place with Adam under a one-cycle learning rate (Smith & Topin 2017, arXiv 1708.07120).

    Args:
        module: The network; left in eval mode.
        split: The train split.
        recipe: Epochs, batch size and learning rate.
        seed: Seed of the order of examples.
    """
    x, y = _arrays(split)
    generator = torch.Generator().manual_seed(seed)
    steps = recipe.epochs * -(-len(y) // recipe.batch_size)
    optimizer = torch.optim.Adam(module.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps)
    module.train()
    for _ in range(recipe.epochs):
        for rows in torch.split(torch.randperm(len(y), generator=generator), recipe.batch_size):
            if len(rows) == 1 and len(y) > 1:  # BatchNorm needs the variance of several examples
                continue
            optimizer.zero_grad()
            torch.autograd.backward(functional.cross_entropy(module(x[rows]), y[rows]))
            optimizer.step()
            schedule.step()
    module.eval()


def _arrays(split: Split) -> tuple[Tensor, Tensor]:
    """Returns all inputs, `(n, *input_shape)` float32, and labels, `(n,)` int64."""
    batches = list(split.batches(READ_BATCH))
    x = torch.from_numpy(np.concatenate([packed(inputs) for inputs, _ in batches]))
    return x, torch.from_numpy(np.concatenate([labels for _, labels in batches]))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limits torch to one thread: reproducible on any number of cores, and faster for small networks."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _read_into(module: nn.Module, path: Path) -> bool:
    """Loads a stored checkpoint; returns False if there is none or it is damaged (it is then replaced)."""
    try:
        load_state_dict(module, read_state_dict(path), path)
    except InputError:
        return False
    return True


def _write(module: nn.Module, path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    write_atomic(path, buffer.getvalue())
