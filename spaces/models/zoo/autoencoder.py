"""A small autoencoder of linear layers: trained on first use, in seconds, then stored."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from spaces.errors import ConfigError
from spaces.models.zoo.first_training import FirstTrainedModel, Recipe


class AutoencoderModel(FirstTrainedModel):
    """Layers that narrow to a code and widen again, with a user's checkpoint or trained on first use.

    The defaults are a small version of MLPerf Tiny's network for anomalies: `hidden=[128,128,128,128] code=8` for 640 inputs is that one.

    Args:
        checkpoint: A checkpoint of this network; None trains it on the task's train split.
        input_shape: Shape of one example.
        hidden: Widths of the layers before the code; those after it are the same in reverse.
        code: Width of the code.
        epochs: Passes over the train split.
        batch_size: Examples a step.
        learning_rate: Highest learning rate of the training.
    """

    name: ClassVar[str] = "autoencoder"

    def __init__(
        self,
        checkpoint: str | None = None,
        input_shape: Sequence[int] = (64,),
        hidden: Sequence[int] = (64, 32),
        code: int = 8,
        epochs: int = 40,
        batch_size: int = 32,
        learning_rate: float = 1e-2,
    ) -> None:
        super().__init__(checkpoint, input_shape, Recipe(epochs, batch_size, learning_rate))
        widths = (*hidden, code)
        if not all(type(width) is int and width > 0 for width in widths):
            raise ConfigError(
                f"model.hidden and model.code must be positive whole numbers, not {list(hidden)} and {code!r}"
            )
        self.widths = widths

    def build(self) -> nn.Module:
        """Returns the network with random weights."""
        return Autoencoder(prod(self.input_shape), self.widths)


class Autoencoder(nn.Module):
    """`(n, ...)` float32 -> the same number of values, `(n, k)`; Linear, BatchNorm and ReLU but for the last layer.

    Args:
        n_inputs: Values of an example.
        widths: Of the layers up to the code.
    """

    def __init__(self, n_inputs: int = 64, widths: Sequence[int] = (64, 32, 8)) -> None:
        super().__init__()
        around = (n_inputs, *widths, *reversed(widths[:-1]))
        self.layers = nn.Sequential(*(_Layer(n, m) for n, m in pairwise(around)))
        self.output = nn.Linear(around[-1], n_inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the reconstruction."""
        flat = torch.flatten(x, 1) if x.ndim > 2 else x
        return self.output(self.layers(flat))  # type: ignore[no-any-return]


class _Layer(nn.Sequential):
    """Linear, BatchNorm, ReLU."""

    def __init__(self, n_inputs: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_inputs, width, bias=False)
        self.norm = nn.BatchNorm1d(width)
        self.relu = nn.ReLU()
