"""A small network for 8x8 digits: trained on first use, in seconds, then stored."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from spaces.models.zoo.first_training import FirstTrainedModel, Recipe

EPOCHS = 15


class DigitsCNNModel(FirstTrainedModel):
    """The digits network, with a user's checkpoint or trained on first use.

    Args:
        checkpoint: A checkpoint of this network; None trains it on the task's train split.
        n_classes: Number of outputs.
        input_shape: Shape of one example, `(channels, height, width)`.
        epochs: Passes over the train split.
    """

    name: ClassVar[str] = "digits_cnn"

    def __init__(
        self,
        checkpoint: str | None = None,
        n_classes: int = 10,
        input_shape: Sequence[int] = (1, 8, 8),
        epochs: int = EPOCHS,
    ) -> None:
        super().__init__(checkpoint, input_shape, Recipe(epochs))
        self.n_classes = n_classes

    def build(self) -> nn.Module:
        """Returns the network with random weights."""
        return DigitsCNN(self.n_classes, self.input_shape[0])


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
