"""Layers that several families share: convolutions with BatchNorm over signals or images, squeeze and excitation, resizing."""

from collections.abc import Sequence
from math import ceil, prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from spaces.errors import ConfigError
from spaces.knob_spec import KnobSpec
from spaces.models.zoo.mobilenet_v2 import round_channels as round_channels

CONV: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d}
NORM: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "none": nn.Identity,
}


def n_axes(input_shape: Sequence[int]) -> int:
    """Returns the number of axes besides the channels: 1 for signals `(channels, time)`, 2 for images."""
    return len(input_shape) - 1


def conv_bn(
    axes: int,
    n_in: int,
    n_out: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    activation: str = "relu",
) -> nn.Sequential:
    """Returns a convolution that keeps the size (but for the stride), BatchNorm and an activation.

    Args:
        axes: 1 for signals, 2 for images.
        n_in: Input channels.
        n_out: Output channels.
        kernel: Odd kernel size along every axis.
        stride: Stride along every axis.
        groups: Groups of channels; `n_in` for a depthwise convolution.
        activation: One of `ACTIVATIONS`; `none` adds no module.
    """
    conv = CONV[axes](n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    parts: list[nn.Module] = [conv, NORM[axes](n_out)]
    return nn.Sequential(*parts, *([] if activation == "none" else [ACTIVATIONS[activation]()]))


class SqueezeExcite(nn.Module):
    """Scales channels by a function of their means (Hu et al. 2018, arXiv 1709.01507)."""

    def __init__(self, axes: int, channels: int, hidden: int, gate: str = "sigmoid") -> None:
        super().__init__()
        self.reduce = CONV[axes](channels, hidden, 1)
        self.expand = CONV[axes](hidden, channels, 1)
        self.gate: nn.Module = nn.Hardsigmoid() if gate == "hardsigmoid" else nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """`(n, channels, ...)` -> the same shape."""
        means = x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)
        return x * self.gate(self.expand(functional.relu(self.reduce(means))))  # type: ignore[no-any-return]


class Head(nn.Module):
    """The mean over all positions, dropout, and a linear layer: `(n, channels, ...)` -> `(n, n_outputs)`."""

    def __init__(self, channels: int, n_outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.linear = nn.Linear(channels, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        means = x.mean(dim=tuple(range(2, x.ndim)))
        return self.linear(means if self.dropout is None else self.dropout(means))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """Adds the input to a module's output."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        """Any shape that the branch keeps."""
        return x + self.branch(x)  # type: ignore[no-any-return]


class Resized(nn.Module):
    """Scales images to another size: the mean of cells where the size divides, else bilinear."""

    def __init__(self, size: tuple[int, int], to: tuple[int, int]) -> None:
        super().__init__()
        self.to_size = to
        self.cell = (
            (size[0] // to[0], size[1] // to[1])
            if not any(s % t for s, t in zip(size, to, strict=True))
            else None
        )

    def extra_repr(self) -> str:
        """Returns the attributes that decide the shapes."""
        return f"to={self.to_size}, cell={self.cell}"

    def forward(self, x: Tensor) -> Tensor:
        """`(n, channels, height, width)` -> `(n, channels, *to)`."""
        if self.cell is not None:
            return functional.avg_pool2d(x, self.cell)
        return functional.interpolate(x, self.to_size, mode="bilinear", align_corners=False)


RESOLUTION = KnobSpec(
    "resolution",
    0,
    "size of square images that the inputs are scaled to; 0: as they are",
    (0, 8, 16, 24, 28, 32, 48, 64, 96, 112, 128, 160, 192, 224, 256),
)


def resized(network: nn.Module, input_shape: Sequence[int], resolution: int) -> nn.Module:
    """Returns a network that scales its images first, unless they have the size or `resolution` is 0.

    Args:
        network: Takes images of the new size.
        input_shape: `(channels, height, width)` before.
        resolution: A value of `RESOLUTION`.
    """
    size, to = input_shape[1:], resized_to(input_shape, resolution)[1:]
    return (
        network if to == tuple(size) else nn.Sequential(Resized((size[0], size[1]), (to[0], to[1])), network)
    )


def resized_to(input_shape: Sequence[int], resolution: int) -> tuple[int, ...]:
    """Returns the shape of images `(channels, height, width)` after `RESOLUTION`."""
    return (input_shape[0], resolution, resolution) if resolution else tuple(input_shape)


def images_only(name: str, input_shape: Sequence[int]) -> str | None:
    """Returns why a family of networks for images cannot take an input; None if it can."""
    if len(input_shape) == 3:
        return None
    return f"{name} takes images (channels, height, width), not inputs of shape {tuple(input_shape)}"


def check_positive(**sizes: int) -> None:
    """Raises ConfigError unless a family's arguments, by name, are positive."""
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"model.family.{name} must be at least 1, not {size}")


def too_small(input_shape: Sequence[int], strides: Sequence[int]) -> str | None:
    """Returns why the axes of an input cannot be divided by these strides; None if they can.

    Args:
        input_shape: `(channels, ...)`.
        strides: Strides in their order.
    """
    sizes = list(input_shape[1:])
    if min(sizes) >= prod(strides):
        return None
    return f"strides of {prod(strides)} in all leave nothing of inputs of shape {tuple(input_shape)}"


def halved(size: int, times: int) -> int:
    """Returns what a size becomes after so many layers of stride 2 that keep borders."""
    for _ in range(times):
        size = ceil(size / 2)
    return size


def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    """Sets whole examples of a residual branch to 0 in training (stochastic depth, Huang et al. 2016, arXiv 1603.09382)."""
    if not training or rate == 0.0:
        return x
    keep = torch.rand(len(x), *(1 for _ in x.shape[1:]), device=x.device) >= rate
    return x * keep / (1 - rate)
