"""A multilayer perceptron for tabular data: trained on first use, in seconds, then stored."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from spaces.errors import ConfigError
from spaces.models.zoo.first_training import FirstTrainedModel, Recipe


class MLPModel(FirstTrainedModel):
    """The perceptron, with a user's checkpoint or trained on first use.

    Args:
        checkpoint: A checkpoint of this network; None trains it on the task's train split.
        n_classes: Number of outputs.
        input_shape: Shape of one example; several axes are flattened.
        hidden: Width of each hidden layer.
        batch_norm: Whether a BatchNorm stands before each ReLU.
        epochs: Passes over the train split.
        batch_size: Examples a step.
        learning_rate: Highest learning rate of the training.
    """

    name: ClassVar[str] = "mlp"

    def __init__(
        self,
        checkpoint: str | None = None,
        n_classes: int = 2,
        input_shape: Sequence[int] = (30,),
        hidden: Sequence[int] = (64, 32),
        batch_norm: bool = False,
        epochs: int = 20,
        batch_size: int = 16,
        learning_rate: float = 5e-3,
    ) -> None:
        super().__init__(checkpoint, input_shape, Recipe(epochs, batch_size, learning_rate))
        self.hidden, self.n_classes, self.batch_norm = _widths(hidden), n_classes, batch_norm

    def build(self) -> nn.Module:
        """Returns the network with random weights."""
        return MLP(prod(self.input_shape), self.hidden, self.n_classes, self.batch_norm)


def _widths(given: object) -> tuple[int, ...]:
    widths = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else ()
    if not widths or not all(type(width) is int and width > 0 for width in widths):
        raise ConfigError(f"model.hidden must list positive whole numbers, not {given!r}")
    return widths


class MLP(nn.Module):
    """`(n, ...)` float32, standardised -> `(n, n_classes)` logits; 4,130 parameters for 30-64-32-2."""

    def __init__(
        self,
        n_inputs: int = 30,
        hidden: Sequence[int] = (64, 32),
        n_classes: int = 2,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.hidden = nn.Sequential(*(_Layer(n, m, batch_norm) for n, m in pairwise((n_inputs, *hidden))))
        self.output = nn.Linear(hidden[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        flat = torch.flatten(x, 1) if x.ndim > 2 else x
        return self.output(self.hidden(flat))  # type: ignore[no-any-return]


class _Layer(nn.Sequential):
    """Linear, optional BatchNorm, ReLU."""

    def __init__(self, n_inputs: int, width: int, batch_norm: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(n_inputs, width, bias=not batch_norm)
        if batch_norm:
            self.norm = nn.BatchNorm1d(width)
        self.relu = nn.ReLU()
