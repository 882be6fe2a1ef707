"""ResNets for 32x32 images (He et al. 2015, arXiv 1512.03385, section 4.2), parameter-free shortcuts (option A)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from spaces.errors import ConfigError
from spaces.models.checkpoint import CheckpointModel


class CifarResNetModel(CheckpointModel):
    """A CIFAR ResNet of depth 6n + 2: 20, 32, 44, 56, 110, ...

    Args:
        depth: Number of weighted layers.
        checkpoint: The published checkpoint (names may begin with `module.`); None for random weights.
        n_classes: Number of outputs.
        input_shape: Shape of one example.
    """

    def __init__(
        self,
        depth: int,
        checkpoint: str | None,
        n_classes: int = 10,
        input_shape: Sequence[int] = (3, 32, 32),
    ) -> None:
        super().__init__(checkpoint, input_shape)
        if depth < 8 or (depth - 2) % 6:
            raise ConfigError(f"model.depth must be 6n + 2 (8, 14, 20, 32, 44, 56, 110, ...), not {depth}")
        self.depth, self.n_classes = depth, n_classes

    def build(self) -> nn.Module:
        """Returns the network with random weights."""
        return CifarResNet(self.depth, self.n_classes)


class CifarResNet(nn.Module):
    """`(n, 3, 32, 32)` float32, normalised -> `(n, n_classes)` logits."""

    def __init__(self, depth: int = 20, n_classes: int = 10) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _group(16, 16, 1, blocks)
        self.layer2 = _group(16, 32, 2, blocks)
        self.layer3 = _group(32, 64, 2, blocks)
        self.linear = nn.Linear(64, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1)
        return self.linear(x)  # type: ignore[no-any-return]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        same = stride == 1 and n_in == n_out
        self.shortcut: nn.Module = nn.Sequential() if same else OptionA(stride, n_out - n_in)

    def forward(self, x: Tensor) -> Tensor:
        """Returns `relu(f(x) + shortcut(x))`."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + self.shortcut(x))


class OptionA(nn.Module):
    """The parameter-free shortcut: subsamples by `stride` and pads the channels with zeros on both sides."""

    def __init__(self, stride: int, n_extra: int) -> None:
        super().__init__()
        self.stride, self.before, self.after = stride, n_extra // 2, n_extra - n_extra // 2

    def extra_repr(self) -> str:
        """Returns the attributes that decide the shapes; they are part of a network's digest."""
        return f"stride={self.stride}, before={self.before}, after={self.after}"

    def forward(self, x: Tensor) -> Tensor:
        """Returns `(n, c + n_extra, h / stride, w / stride)`."""
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, self.before, self.after))

    def channel_map(self, n_inputs: int) -> range:
        """Returns the index of the output channel of each input channel."""
        return range(self.before, self.before + n_inputs)

    def keep_channels(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Reduces the zero padding to the channels among `outputs`, the old indices of kept channels."""
        before = sum(channel < self.before for channel in outputs)
        self.before, self.after = before, len(outputs) - before - len(inputs)


def _group(n_in: int, n_out: int, stride: int, blocks: int) -> nn.Sequential:
    first = BasicBlock(n_in, n_out, stride)
    return nn.Sequential(first, *(BasicBlock(n_out, n_out, 1) for _ in range(blocks - 1)))
