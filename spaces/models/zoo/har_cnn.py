"""A small 1D CNN for windows of sensor readings: trained on first use, in seconds, then stored."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from spaces.errors import ConfigError
from spaces.models.zoo.first_training import FirstTrainedModel, Recipe


class HarCNNModel(FirstTrainedModel):
    """The network for activity recognition, with a user's checkpoint or trained on first use.

    Args:
        checkpoint: A checkpoint of this network; None trains it on the task's train split.
        n_classes: Number of outputs.
        input_shape: Shape of one example, `(channels, time)`.
        widths: Output channels of each convolution.
        strides: Stride of each convolution.
        kernel_size: Kernel size of every convolution; odd.
        epochs: Passes over the train split.
        learning_rate: Highest learning rate of the training.
    """

    name: ClassVar[str] = "har_cnn"

    def __init__(
        self,
        checkpoint: str | None = None,
        n_classes: int = 6,
        input_shape: Sequence[int] = (6, 128),
        widths: Sequence[int] = (32, 48, 64),
        strides: Sequence[int] = (2, 2, 2),
        kernel_size: int = 5,
        epochs: int = 8,
        learning_rate: float = 5e-3,
    ) -> None:
        super().__init__(checkpoint, input_shape, Recipe(epochs, learning_rate=learning_rate))
        if len(self.input_shape) != 2:
            raise ConfigError(f"model.input_shape must be [channels, time], not {list(self.input_shape)}")
        if type(kernel_size) is not int or kernel_size < 1 or kernel_size % 2 == 0:
            raise ConfigError(f"model.kernel_size must be an odd whole number, not {kernel_size!r}")
        self.n_classes, self.kernel_size = n_classes, kernel_size
        self.widths, self.strides = _sizes(widths, "widths"), _sizes(strides, "strides")
        if len(self.widths) != len(self.strides):
            raise ConfigError(
                "model.widths and model.strides must have one number for each convolution, "
                f"not {list(self.widths)} and {list(self.strides)}"
            )

    def build(self) -> nn.Module:
        """Returns the network with random weights."""
        return HarCNN(self.n_classes, self.input_shape[0], self.widths, self.strides, self.kernel_size)


def _sizes(given: object, name: str) -> tuple[int, ...]:
    sizes = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else ()
    if not sizes or not all(type(size) is int and size > 0 for size in sizes):
        raise ConfigError(f"model.{name} must list positive whole numbers, not {given!r}")
    return sizes


class HarCNN(nn.Module):
    """`(n, n_channels, time)` float32, normalised -> `(n, n_classes)` logits; default: 24,678 parameters."""

    def __init__(
        self,
        n_classes: int = 6,
        n_channels: int = 6,
        widths: Sequence[int] = (32, 48, 64),
        strides: Sequence[int] = (2, 2, 2),
        kernel_size: int = 5,
    ) -> None:
        super().__init__()
        channels = pairwise((n_channels, *widths))
        self.blocks = nn.Sequential(
            *(_Block(n, m, kernel_size, stride) for (n, m), stride in zip(channels, strides, strict=True))
        )
        self.linear = nn.Linear(widths[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        return self.linear(self.blocks(x).mean(dim=-1))  # type: ignore[no-any-return]


class _Block(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv1d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm1d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, in_channels, time)` -> `(n, out_channels, time / stride)`."""
        return functional.relu(self.bn(self.conv(x)))
