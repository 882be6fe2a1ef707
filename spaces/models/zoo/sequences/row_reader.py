"""A small network that reads images from left to right: trained on first use, in seconds, then stored."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from spaces.errors import ConfigError
from spaces.models.zoo.first_training import FirstTrainedModel, Recipe


class RowReaderModel(FirstTrainedModel):
    """The reader, with a user's checkpoint or trained on first use.

    Args:
        checkpoint: A checkpoint of this network; None trains it on the task's train split.
        n_classes: Number of classes of a step; for transcripts, symbols and the blank.
        input_shape: Shape of one example, `(1, height, width)`; a step is two columns.
        width: Channels of the hidden layers.
        recurrent: Whether a GRU in both directions reads the columns' features; else a convolution along the row does.
        epochs: Passes over the train split.
        batch_size: Examples a step.
        learning_rate: Highest learning rate of the training.
    """

    name: ClassVar[str] = "row_reader"

    def __init__(
        self,
        checkpoint: str | None = None,
        n_classes: int = 11,
        input_shape: Sequence[int] = (1, 8, 64),
        width: int = 32,
        recurrent: bool = False,
        epochs: int = 15,
        batch_size: int = 16,
        learning_rate: float = 1e-2,
    ) -> None:
        super().__init__(checkpoint, input_shape, Recipe(epochs, batch_size, learning_rate))
        if len(self.input_shape) != 3 or self.input_shape[0] != 1 or self.input_shape[1] % 4:
            raise ConfigError(
                f"model.input_shape must be [1, height, width], the height a multiple of 4, not {list(self.input_shape)}"
            )
        if type(width) is not int or width < 2 or width % 2:
            raise ConfigError(f"model.width must be an even whole number, not {width!r}")
        self.n_classes, self.width, self.recurrent = n_classes, width, recurrent

    def build(self) -> nn.Module:
        """Returns the network with random weights."""
        return RowReader(self.n_classes, self.input_shape[1], self.width, self.recurrent)


class RowReader(nn.Module):
    """`(n, 1, height, columns)` float32 -> `(n, columns / 2, n_classes)` logits."""

    def __init__(
        self, n_classes: int = 11, height: int = 8, width: int = 32, recurrent: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width // 2, 3, stride=(2, 1), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.columns = nn.Conv1d(width * (height // 4), width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm1d(width)
        self.recurrent = (
            nn.GRU(width, width // 2, batch_first=True, bidirectional=True) if recurrent else None
        )
        self.row = None if recurrent else nn.Conv1d(width, width, 5, padding=2)
        self.linear = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits of every step."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x))).flatten(1, 2)
        x = functional.relu(self.bn3(self.columns(x)))
        if self.row is not None:
            x = functional.relu(self.row(x))
        x = x.transpose(1, 2)
        if self.recurrent is not None:
            x = self.recurrent(x)[0]
        return self.linear(x)  # type: ignore[no-any-return]
