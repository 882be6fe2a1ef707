"""A small network for spectrograms, of depthwise separable convolutions: trained on first use, in seconds, then stored."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from spaces.errors import ConfigError
from spaces.models.zoo.first_training import FirstTrainedModel, Recipe


class SoundCNNModel(FirstTrainedModel):
    """The network for sounds (after DS-CNN: Zhang et al. 2017, arXiv 1711.07128), with a checkpoint or trained on first use.

    Args:
        checkpoint: A checkpoint of this network; None trains it on the task's train split.
        n_classes: Number of outputs.
        input_shape: Shape of one example, `(1, frames, features)`.
        width: Channels of every convolution.
        blocks: Number of depthwise separable blocks.
        epochs: Passes over the train split.
        learning_rate: Highest learning rate of the training.
    """

    name: ClassVar[str] = "sound_cnn"

    def __init__(
        self,
        checkpoint: str | None = None,
        n_classes: int = 12,
        input_shape: Sequence[int] = (1, 49, 40),
        width: int = 32,
        blocks: int = 3,
        epochs: int = 15,
        learning_rate: float = 1e-2,
    ) -> None:
        super().__init__(checkpoint, input_shape, Recipe(epochs, learning_rate=learning_rate))
        if len(self.input_shape) != 3 or self.input_shape[0] != 1:
            raise ConfigError(
                f"model.input_shape must be [1, frames, features], not {list(self.input_shape)}"
            )
        for name, value in (("width", width), ("blocks", blocks)):
            if type(value) is not int or value < 1:
                raise ConfigError(f"model.{name} must be a whole number from 1 on, not {value!r}")
        self.n_classes, self.width, self.blocks = n_classes, width, blocks

    def build(self) -> nn.Module:
        """Returns the network with random weights."""
        return SoundCNN(self.n_classes, self.width, self.blocks)


class SoundCNN(nn.Module):
    """`(n, 1, frames, features)` float32 -> `(n, n_classes)` logits; 5,900 parameters for 12 classes."""

    def __init__(self, n_classes: int = 12, width: int = 32, blocks: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, (7, 5), stride=2, padding=(3, 2), bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(blocks)))
        self.linear = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        x = self.blocks(functional.relu(self.bn(self.conv(x))))
        return self.linear(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))  # type: ignore[no-any-return]


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.pointwise = nn.Conv2d(width, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, width, frames, features)` -> the same shape."""
        x = functional.relu(self.bn1(self.depthwise(x)))
        return functional.relu(self.bn2(self.pointwise(x)))
