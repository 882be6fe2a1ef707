"""Small networks that are trained on first use, in seconds; their checkpoints are stored."""

import io
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

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
from spaces.task_losses import IGNORED, LOSSES, TaskLoss, task_loss

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
        input_shape: Shape of one example, without the batch axis; for several inputs, shapes by the name of the argument.
        recipe: Hyperparameters of the training.
        input_dtype: Element type of the input, or element types by name; None is float32.
    """

    name: ClassVar[str]

    def __init__(
        self,
        checkpoint: str | None,
        input_shape: Sequence[int] | Mapping[str, Sequence[int]],
        recipe: Recipe,
        input_dtype: str | Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(checkpoint, input_shape, input_dtype=input_dtype)
        self.recipe = recipe

    @abstractmethod
    def build(self) -> nn.Module:
        """Returns the network with random weights."""

    def check(self, split: Split) -> None:
        """Raises InputError if the network cannot take the examples for a reason that their shape does not tell."""

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
        run = self.training(module, context)
        path = context.cache_dir / f"{self.name}-{self._digest(module, context)}.pt"
        if not _read_into(module, path) and context.trains:
            with _one_thread():
                run()
            _write(module, path)
        return torch_artifact(module, self.input)

    def training(self, module: nn.Module, context: LoadContext) -> Callable[[], None]:
        """Returns what trains the network in place; a network with labels of its own kind overrides it.

        Args:
            module: The network, with random weights.
            context: Train split, seed and loss.

        Raises:
            InputError: The network cannot be trained on these examples.
        """
        assert context.train is not None
        torch_artifact(module, self.input)  # from here on it takes packed inputs
        self.check(context.train)
        loss = checked_loss(self.name, module, context.train, self.input, context.loss)
        return partial(train, module, context.train, self.recipe, context.seed, loss)

    def _digest(self, module: nn.Module, context: LoadContext) -> str:
        assert context.train is not None
        code = code_digest(type(self))  # the training code
        seeds = (context.train.digest, context.seed, context.loss)
        shape = self.input if self.input.others else self.input_shape
        return digest_of(*seeds, identity(module), code, shape, astuple(self.recipe))


def checked_loss(name: str, module: nn.Module, split: Split, spec: InputSpec, loss: str | None) -> TaskLoss:
    """Returns the loss of a training on first use.

    Args:
        name: The network's name, for messages.
        module: The network, which takes packed inputs.
        split: The train split.
        spec: The network's inputs.
        loss: Name of the task's loss.

    Raises:
        InputError: There is no loss, or the network does not fit the examples.
    """
    found = task_loss(loss)
    if found is None:
        raise InputError(f"{name} is trained on first use, but the task's labels suit no training loss")
    _check_shapes(split, spec)
    _check_fit(module, split, spec.packed_shape, found)
    return found


def _check_shapes(split: Split, spec: InputSpec) -> None:
    """Raises InputError if the network takes inputs of other shapes than the split's."""
    inputs = next(iter(split.batches(1, 1)))[0]
    given = inputs if isinstance(inputs, Mapping) else {spec.name: inputs}
    found = {name: list(array.shape[1:]) for name, array in given.items()}
    wanted = {tensor.name: list(tensor.shape) for tensor in spec.tensors}
    if found != wanted:
        plain = len(found) == len(wanted) == 1
        texts = (next(iter(shapes.values())) if plain else shapes for shapes in (wanted, found))
        raise InputError("model.input_shape is {}, but the task's examples are {}".format(*texts))


def _check_fit(module: nn.Module, split: Split, input_shape: tuple[int, ...], loss: TaskLoss) -> None:
    """Raises InputError if the network's outputs do not fit the split's labels."""
    labels = np.concatenate([labels for _, labels in split.batches(READ_BATCH)])
    with torch.no_grad():
        outputs = module.eval()(torch.zeros(1, *input_shape))
    if loss.class_axis is not None:
        if outputs.ndim != labels.ndim + 1:
            each = "each step or position" if labels.ndim > 1 else "an example"
            raise InputError(
                f"the network yields {tuple(outputs.shape[1:])} for an example, but the task's labels are {labels.shape[1:]}: a value "
                f"for each class of {each} is needed"
            )
        _check_classes(outputs.shape[loss.class_axis], labels)
    elif not loss.any_size and outputs[0].numel() != prod(labels.shape[1:]) - loss.n_extra:
        raise InputError(
            f"the network yields {tuple(outputs.shape[1:])} for an example, but the task's labels are {labels.shape[1:]}: "
            "model.n_classes must be the number of values"
        )


def _check_classes(n_outputs: int, labels: NDArray[Any]) -> None:
    if labels.min() < (0 if labels.ndim == 1 else IGNORED) or labels.max() >= n_outputs:
        raise InputError(
            f"the network has {n_outputs} outputs, but the task's labels lie in {labels.min()}..{labels.max()}: "
            "model.n_classes must be the task's number of classes"
        )


def train(
    module: nn.Module,
    split: Split,
    recipe: Recipe,
    seed: int,
    loss: TaskLoss = LOSSES["cross_entropy"],
) -> None:
    """Trains in place with Adam under a one-cycle learning rate (Smith & Topin 2017, arXiv 1708.07120).

    Args:
        module: The network; left in eval mode.
        split: The train split.
        recipe: Epochs, batch size and learning rate.
        seed: Seed of the order of examples.
        loss: The task's loss.
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
            torch.autograd.backward(loss.each(module(x[rows]), y[rows], 0.0).mean())
            optimizer.step()
            schedule.step()
    module.eval()


def _arrays(split: Split) -> tuple[Tensor, Tensor]:
    """Returns all inputs, `(n, *input_shape)` float32, and labels, `(n, ...)` int64 or float32."""
    batches = list(split.batches(READ_BATCH))
    x = torch.from_numpy(np.concatenate([packed(inputs) for inputs, _ in batches]))
    labels = np.concatenate([labels for _, labels in batches])
    return x, torch.from_numpy(
        labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64, copy=False)
    )


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
