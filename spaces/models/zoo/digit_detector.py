"""A tiny single-scale detector: trained on boxes on first use, in seconds, then stored."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from spaces.digest import digest_of
from spaces.errors import ConfigError, InputError
from spaces.models.base import LoadContext
from spaces.models.zoo.first_training import FirstTrainedModel, Recipe, train
from spaces.stages.artifact import Split
from spaces.stages.inputs import Inputs
from spaces.task_losses import TaskLoss

BOX = 5  # presence, centre x and y, width, height
STRIDES = 2  # the blocks that halve height and width
STRIDE = 2**STRIDES


class DigitDetectorModel(FirstTrainedModel):
    """The detector, with a user's checkpoint or trained on first use on boxes.

    Labels are `(m, 5 or more)` for each image: x1, y1, x2, y2 in pixels of the input, class, and further columns; boxes whose sixth
    column is not 0 are left out.

    Args:
        checkpoint: A checkpoint of this network; None trains it on the task's train split.
        n_classes: Number of classes.
        input_shape: Shape of one image, `(channels, height, width)`; sides are multiples of 4.
        widths: Output channels of each convolution; the first and the second halve height and width.
        epochs: Passes over the train split.
        learning_rate: Highest learning rate of the training.
    """

    name: ClassVar[str] = "digit_detector"

    def __init__(
        self,
        checkpoint: str | None = None,
        n_classes: int = 10,
        input_shape: Sequence[int] = (1, 32, 32),
        widths: Sequence[int] = (16, 32, 48),
        epochs: int = 15,
        learning_rate: float = 2e-2,
    ) -> None:
        super().__init__(checkpoint, input_shape, Recipe(epochs, learning_rate=learning_rate))
        sides = self.input_shape[1:]
        if len(self.input_shape) != 3 or any(side % STRIDE for side in sides):
            raise ConfigError(
                f"model.input_shape must be [channels, height, width], sides multiples of {STRIDE}, not {list(self.input_shape)}"
            )
        if len(widths) <= STRIDES or not all(type(width) is int and width > 0 for width in widths):
            raise ConfigError(
                f"model.widths must list {STRIDES + 1} or more numbers of channels, not {list(widths)}"
            )
        self.n_classes, self.widths = n_classes, tuple(widths)

    def build(self) -> nn.Module:
        """Returns the network with random weights."""
        return DigitDetector(self.n_classes, self.input_shape[0], self.widths)

    def training(self, module: nn.Module, context: LoadContext) -> Callable[[], None]:
        """Returns what trains the network in place.

        Raises:
            InputError: The labels are no boxes, or have classes that the network lacks.
        """
        assert context.train is not None
        _, height, width = self.input_shape
        grids = GridTargets(context.train, height // STRIDE, width // STRIDE, self.n_classes)
        grids.check(self.input_shape)
        return partial(train, module, grids, self.recipe, context.seed, GRID_LOSS)


class DigitDetector(nn.Module):
    """`(n, n_channels, h, w)` float32 in [0, 1] -> `(n, 5 + n_classes, h / 4, w / 4)`.

    The numbers of a cell are: logit of the presence of a box whose centre lies in it; logits of the centre's x and y within the cell;
    logarithms of width and height, in cells; logits of the classes.
    """

    def __init__(
        self, n_classes: int = 10, n_channels: int = 1, widths: Sequence[int] = (16, 32, 48)
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for position, (n, m) in enumerate(pairwise((n_channels, *widths))):
            stride = 2 if position < STRIDES else 1
            blocks += [nn.Conv2d(n, m, 3, stride, 1, bias=False), nn.BatchNorm2d(m), nn.ReLU()]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv2d(widths[-1], BOX + n_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the grid."""
        return self.head(self.blocks(x))  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class GridTargets:
    """A split whose labels are grids, `(6, rows, columns)`: presence, x, y, log width, log height, class of each cell's box.

    Attributes:
        split: The split, whose labels are boxes.
        rows: Rows of the grid.
        columns: Its columns.
        n_classes: Number of classes.
    """

    split: Split
    rows: int
    columns: int
    n_classes: int

    @property
    def digest(self) -> str:
        """16 hex digits."""
        return digest_of(self.split.digest, self.rows, self.columns)

    def __len__(self) -> int:
        return len(self.split)

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[tuple[Inputs, NDArray[Any]]]:
        """Yields inputs, and grids `(b, 6, rows, columns)` float32."""
        for inputs, labels in self.split.batches(batch_size, limit):
            yield inputs, np.stack([self._grid(label) for label in labels])

    def check(self, input_shape: tuple[int, ...]) -> None:
        """Raises InputError if the examples are no such inputs, or their labels no boxes of known classes."""
        for inputs, labels in self.split.batches(256):
            shape = None if isinstance(inputs, dict) else inputs.shape[1:]  # type: ignore[union-attr]
            if shape != input_shape:
                raise InputError(
                    f"model.input_shape is {list(input_shape)}, but the task's examples are {shape}"
                )
            for label in labels:
                if np.ndim(label) != 2 or label.shape[1] < BOX:
                    raise InputError(
                        "digit_detector is trained on boxes: labels must be (m, 5 or more), x1, y1, x2, y2, class, not "
                        f"{np.shape(label)}"
                    )
                highest = int(label[:, 4].max(initial=0))
                if highest >= self.n_classes:
                    raise InputError(
                        f"the network has {self.n_classes} classes, but a label has class {highest}: model.n_classes must be the "
                        "task's number of classes"
                    )

    def _grid(self, label: NDArray[np.float64]) -> NDArray[np.float32]:
        grid = np.zeros((BOX + 1, self.rows, self.columns), np.float32)
        for x1, y1, x2, y2, number, *further in (
            label / ([STRIDE] * 4 + [1] * (label.shape[1] - 4))
        ).tolist():
            if further and further[0]:
                continue
            x, y = (x1 + x2) / 2, (y1 + y2) / 2
            column, row = min(max(int(x), 0), self.columns - 1), min(max(int(y), 0), self.rows - 1)
            grid[:, row, column] = 1, x - column, y - row, np.log(x2 - x1), np.log(y2 - y1), number
        return grid


def _grid_loss(outputs: Tensor, grids: Tensor, _: float) -> Tensor:
    """Returns the loss of each example: presence in all cells; place, size and class in cells with a box."""
    present = grids[:, 0]
    presence = functional.binary_cross_entropy_with_logits(outputs[:, 0], present, reduction="none")
    place = (torch.sigmoid(outputs[:, 1:3]) - grids[:, 1:3]).abs().sum(1)
    size = functional.smooth_l1_loss(outputs[:, 3:BOX], grids[:, 3:BOX], reduction="none", beta=0.1).sum(1)
    classes = functional.cross_entropy(outputs[:, BOX:], grids[:, BOX].long(), reduction="none")
    return (presence + present * (place + 2 * size + 0.5 * classes)).flatten(1).sum(1)


GRID_LOSS = TaskLoss("grid", _grid_loss)
