"""A small network for super-resolution: trained on first use, then stored."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from spaces.errors import ConfigError
from spaces.models.zoo.first_training import FirstTrainedModel, Recipe


class ESPCNModel(FirstTrainedModel):
    """Convolutions at low resolution and a pixel shuffle, with a user's checkpoint or trained on first use.

    The network is that of Shi et al. 2016 (arXiv 1609.05158) with ReLU; as in Kim et al. 2016 (arXiv 1511.04587) it yields what is
    to be added to the input enlarged by bicubic interpolation.

    Args:
        checkpoint: A checkpoint of this network; None trains it on the task's train split.
        factor: By which the sides are multiplied.
        input_shape: Shape of one example, `(channels, height, width)`.
        widths: Channels of the two inner convolutions.
        epochs: Passes over the train split.
        batch_size: Examples a step.
        learning_rate: Highest learning rate of the training.
    """

    name: ClassVar[str] = "espcn"

    def __init__(
        self,
        checkpoint: str | None = None,
        factor: int = 2,
        input_shape: Sequence[int] = (3, 24, 24),
        widths: Sequence[int] = (16, 12),
        epochs: int = 60,
        batch_size: int = 8,
        learning_rate: float = 5e-3,
    ) -> None:
        super().__init__(checkpoint, input_shape, Recipe(epochs, batch_size, learning_rate))
        if factor < 1:
            raise ConfigError(f"model.factor must be a whole number from 1 on, not {factor!r}")
        if len(widths) != 2 or not all(type(width) is int and width > 0 for width in widths):
            raise ConfigError(f"model.widths must list two positive whole numbers, not {widths!r}")
        self.factor, self.widths = factor, tuple(widths)

    def build(self) -> nn.Module:
        """Returns the network with random weights."""
        return ESPCN(self.input_shape[0], self.factor, self.widths)


class ESPCN(nn.Module):
    """`(n, c, h, w)` float32 in [0, 1] -> `(n, c, factor * h, factor * w)`; default: 4,264 parameters."""

    def __init__(self, n_channels: int = 3, factor: int = 2, widths: Sequence[int] = (16, 12)) -> None:
        super().__init__()
        self.factor = factor
        self.conv1 = nn.Conv2d(n_channels, widths[0], 5, padding=2)
        self.conv2 = nn.Conv2d(widths[0], widths[1], 3, padding=1)
        self.conv3 = nn.Conv2d(widths[1], n_channels * factor**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the enlarged images."""
        inner = functional.relu(self.conv2(functional.relu(self.conv1(x))))
        enlarged = functional.interpolate(x, scale_factor=float(self.factor), mode="bicubic")
        return functional.pixel_shuffle(self.conv3(inner), self.factor) + enlarged
