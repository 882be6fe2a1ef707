"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381, table 2), with the layer names of the published checkpoints."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from spaces.errors import ConfigError
from spaces.models.checkpoint import CheckpointModel

# Table 2 of the paper: expansion t, channels c, repetitions n, stride of the first s.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV2Model(CheckpointModel):
    """MobileNetV2 at any width and resolution.

    Args:
        checkpoint: A published ImageNet checkpoint; None for random weights (enough where only costs matter).
        width: Multiplier of the channel counts; 1.0 for the published checkpoint.
        n_classes: Number of outputs.
        input_shape: Shape of one example, `(3, height, width)`.
    """

    def __init__(
        self,
        checkpoint: str | None,
        width: float = 1.0,
        n_classes: int = 1000,
        input_shape: Sequence[int] = (3, 224, 224),
    ) -> None:
        super().__init__(checkpoint, input_shape)
        if width <= 0:
            raise ConfigError(f"model.width must be positive, not {width}")
        self.width, self.n_classes = width, n_classes

    def build(self) -> nn.Module:
        """Returns the network with random weights."""
        return MobileNetV2(self.width, self.n_classes, self.input_shape[0])


class MobileNetV2(nn.Module):
    """`(n, n_channels, h, w)` float32, normalised -> `(n, n_classes)` logits.

    Args:
        width: Multiplier of the channel counts.
        n_classes: Number of outputs.
        n_channels: Channels of the images.
        stages: Per stage: expansion, channels, repetitions, stride of the first.
        block: Makes a block from its input channels, output channels, stride and expansion.
        activation: Activation of the first and last convolution.
        stem: Channels of the first convolution, and its stride.
        last: Channels of the last one; more for widths above 1.
    """

    def __init__(
        self,
        width: float = 1.0,
        n_classes: int = 1000,
        n_channels: int = 3,
        stages: Sequence[tuple[int, int, int, int]] = STAGES,
        block: Callable[[int, int, int, int], nn.Module] | None = None,
        activation: type[nn.Module] = nn.ReLU6,
        stem: tuple[int, int] = (32, 2),
        last: int = 1280,
    ) -> None:
        super().__init__()
        n_in = round_channels(stem[0] * width)
        n_last = round_channels(last * max(1.0, width))
        features: list[nn.Module] = [conv_bn(n_channels, n_in, 3, stem[1], activation=activation)]
        for expansion, channels, repetitions, stride in stages:
            n_out = round_channels(channels * width)
            for i in range(repetitions):
                features.append((block or InvertedResidual)(n_in, n_out, stride if i == 0 else 1, expansion))
                n_in = n_out
        self.features = nn.Sequential(*features, conv_bn(n_in, n_last, 1, 1, activation=activation))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(n_last, n_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        x = functional.adaptive_avg_pool2d(self.features(x), 1)
        return self.classifier(torch.flatten(x, 1))  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """Expand (1x1), depthwise, project (1x1, no activation); a shortcut where shapes allow.

    Args:
        n_in: Input channels.
        n_out: Output channels.
        stride: Stride of the depthwise convolution.
        expansion: Its channels, as a multiple of `n_in`; there is no first convolution for 1.
        kernel: Its kernel size.
        activation: Activation of both.
        scale: Makes what follows the depthwise convolution, e.g. squeeze and excitation, from the number of channels.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        stride: int,
        expansion: int,
        kernel: int = 3,
        activation: type[nn.Module] = nn.ReLU6,
        scale: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        hidden = n_in * expansion
        expand = [conv_bn(n_in, hidden, 1, 1, activation=activation)] if expansion != 1 else []
        depthwise = conv_bn(hidden, hidden, kernel, stride, hidden, activation)
        scaled = [] if scale is None else [scale(hidden)]
        project = (nn.Conv2d(hidden, n_out, 1, bias=False), nn.BatchNorm2d(n_out))
        self.conv = nn.Sequential(*expand, depthwise, *scaled, *project)
        self.use_shortcut = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        """Returns `x + f(x)` or `f(x)`."""
        y: Tensor = self.conv(x)
        return x + y if self.use_shortcut else y


def conv_bn(
    n_in: int, n_out: int, kernel: int, stride: int, groups: int = 1, activation: type[nn.Module] = nn.ReLU6
) -> nn.Sequential:
    """A convolution without bias, BatchNorm, an activation."""
    conv = nn.Conv2d(n_in, n_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(n_out), activation())


def round_channels(channels: float, divisor: int = 8) -> int:
    """Rounds to a multiple of `divisor`, at least one, and never down by more than 10 %."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
