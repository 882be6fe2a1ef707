"""ResNets for small images (He et al. 2015, arXiv 1512.03385, section 4.2), with and without normalisation."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from spaces.architectures.blocks import RESOLUTION, Head, images_only, resized, resized_to, too_small
from spaces.architectures.family import Family, Knobs, Shape
from spaces.architectures.norm_free import NORMS, conv_norm
from spaces.knob_spec import KnobSpec
from spaces.models.zoo.cifar_resnet import OptionA


class ResNet(Family):
    """A convolution, stages of residual blocks with twice the channels at half the size, the mean, and a linear layer.

    The default is ResNet-8 of MLPerf Tiny (Banbury et al. 2021, arXiv 2106.07597), without the biases in front of its
    BatchNorms, which have no effect. With `shortcut=pad` and `depth` 3, 5, 7, ... it is ResNet-20, 32, 44, ... of the paper.
    """

    name: ClassVar[str] = "resnet"
    knobs = (
        KnobSpec("width", 16, "channels of the first stage", low=4, high=256),
        KnobSpec("depth", 1, "blocks of a stage", low=1, high=18),
        KnobSpec("stages", 3, "stages; all but the first halve the size and double the channels", low=1, high=5),
        KnobSpec("kernel", 3, "kernel size", (3, 5, 7)),
        KnobSpec("norm", "bn", "BatchNorm, GroupNorm, or none: standardised weights instead", NORMS),
        KnobSpec("shortcut", "conv", "conv: 1x1 where shapes change; pad: every other pixel, zeros", ("conv", "pad")),
        KnobSpec("dropout", 0.0, "share of the features that is dropped in training", low=0.0, high=0.8),
        RESOLUTION,
    )  # fmt: skip

    def build(self, values: Knobs, input_shape: Shape, n_outputs: int) -> nn.Module:
        """Returns the network."""
        width, kernel, norm = values["width"], values["kernel"], values["norm"]
        layers: list[nn.Module] = [conv_norm(input_shape[0], width, kernel, 1, norm), nn.ReLU()]
        n_in = width
        for stage in range(values["stages"]):
            for at in range(values["depth"]):
                stride = 2 if stage and not at else 1
                layers.append(ResidualBlock(n_in, width * 2**stage, kernel, stride, norm, values["shortcut"]))
                n_in = width * 2**stage
        network = nn.Sequential(*layers, Head(n_in, n_outputs, values["dropout"]))
        return resized(network, input_shape, values["resolution"])

    def canonical(self, values: Knobs) -> dict[str, object]:
        """Returns the values; with one stage all shapes are the same."""
        return {**values, **({} if values["stages"] > 1 else {"shortcut": "conv"})}

    def broken(self, values: Knobs, input_shape: Shape) -> str | None:
        """Returns why these values build no valid network."""
        return images_only(self.name, input_shape) or too_small(
            resized_to(input_shape, values["resolution"]), [2] * (values["stages"] - 1)
        )


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut; without normalisation the branch starts at 0."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, norm: str, shortcut: str) -> None:
        super().__init__()
        self.conv1 = conv_norm(n_in, n_out, kernel, stride, norm)
        self.conv2 = conv_norm(n_out, n_out, kernel, 1, norm, ends_branch=True)
        self.shortcut = nn.Identity() if n_in == n_out else _shortcut(n_in, n_out, stride, norm, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, n_in, h, w)` -> `(n, n_out, h / stride, w / stride)`."""
        y = self.conv2(torch.relu(self.conv1(x)))
        return torch.relu(y + self.shortcut(x))


def _shortcut(n_in: int, n_out: int, stride: int, norm: str, kind: str) -> nn.Module:
    if kind == "pad":
        return OptionA(stride, n_out - n_in)
    return conv_norm(n_in, n_out, 1, stride, norm) if norm == "none_ws" else nn.Conv2d(n_in, n_out, 1, stride)
