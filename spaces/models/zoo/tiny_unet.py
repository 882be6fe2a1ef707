"""A small U-Net for the segmentation of small images: trained on first use, then stored."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from spaces.errors import ConfigError
from spaces.models.zoo.first_training import FirstTrainedModel, Recipe


class TinyUNetModel(FirstTrainedModel):
    """The U-Net (Ronneberger et al. 2015, arXiv 1505.04597), with a user's checkpoint or trained on first use.

    Args:
        checkpoint: A checkpoint of this network; None trains it on the task's train split.
        n_classes: Number of outputs of each position.
        input_shape: Shape of one example, `(channels, height, width)`.
        widths: Channels at each resolution, from full resolution on; each further one halves it.
        epochs: Passes over the train split.
        batch_size: Examples a step.
        learning_rate: Highest learning rate of the training.
    """

    name: ClassVar[str] = "tiny_unet"

    def __init__(
        self,
        checkpoint: str | None = None,
        n_classes: int = 4,
        input_shape: Sequence[int] = (1, 24, 24),
        widths: Sequence[int] = (8, 16, 24),
        epochs: int = 12,
        batch_size: int = 16,
        learning_rate: float = 1e-2,
    ) -> None:
        super().__init__(checkpoint, input_shape, Recipe(epochs, batch_size, learning_rate))
        if not widths or not all(type(width) is int and width > 0 for width in widths):
            raise ConfigError(f"model.widths must list positive whole numbers, not {widths!r}")
        step = 2 ** (len(widths) - 1)
        if len(self.input_shape) != 3 or any(side % step for side in self.input_shape[1:]):
            raise ConfigError(
                f"model.input_shape must be [channels, height, width] with sides that {step} divides, not "
                f"{list(self.input_shape)}"
            )
        self.n_classes, self.widths = n_classes, tuple(widths)

    def build(self) -> nn.Module:
        """Returns the network with random weights."""
        return TinyUNet(self.n_classes, self.input_shape[0], self.widths)


class TinyUNet(nn.Module):
    """`(n, n_channels, h, w)` float32 -> `(n, n_classes, h, w)` logits; default: 23,436 parameters."""

    def __init__(self, n_classes: int = 4, n_channels: int = 1, widths: Sequence[int] = (8, 16, 24)) -> None:
        super().__init__()
        self.down = nn.ModuleList(_Block(n, m) for n, m in pairwise((n_channels, *widths)))
        self.up = nn.ModuleList(_Block(m + n, n) for n, m in reversed([*pairwise(widths)]))
        self.output = nn.Conv2d(widths[0], n_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        passed: list[Tensor] = []
        for position, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if position else x)
            passed.append(x)
        for block, earlier in zip(self.up, reversed(passed[:-1]), strict=True):
            x = block(torch.cat([functional.interpolate(x, scale_factor=2.0), earlier], 1))
        return self.output(x)  # type: ignore[no-any-return]


class _Block(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, in_channels, h, w)` -> `(n, out_channels, h, w)`."""
        x = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(x)))
