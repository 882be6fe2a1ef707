"""Phantom: convolutions that make a part of their channels by cheap depthwise convolutions of the others.

Named after YOLO Phantom (Mukherjee et al. 2024, MODIPHY, arXiv 2402.07894). The paper's exact block was not at hand: this one is our own
design, which combines a grouped convolution and cheap maps as in GhostNet (Han et al. 2020, arXiv 1911.11907).
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from spaces.architectures.blocks import (
    RESOLUTION,
    Head,
    Residual,
    conv_bn,
    images_only,
    resized,
    resized_to,
    too_small,
)
from spaces.architectures.family import Family, Knobs, Shape
from spaces.knob_spec import KnobSpec

BLOCKS = ("phantom", "full")


class Phantom(Family):
    """A convolution, stages that halve the size and double the channels, the mean, and a linear layer.

    Each stage is a block with stride 2 and `depth` blocks with a shortcut.
    """

    name: ClassVar[str] = "phantom"
    knobs = (
        KnobSpec("width", 32, "channels of the first convolution, a multiple of 8", low=8, high=256),
        KnobSpec("depth", 1, "blocks of a stage besides its first", low=0, high=6),
        KnobSpec("stages", 2, "stages", low=1, high=4),
        KnobSpec("kernel", 3, "kernel size", (3, 5)),
        KnobSpec("block", "phantom", "phantom, or full: one convolution that makes all channels", BLOCKS),
        KnobSpec(
            "phantom_ratio", 0.5, "share of the channels that the grouped convolution makes", (0.25, 0.5)
        ),
        KnobSpec("groups", 1, "its groups", (1, 2, 4)),
        KnobSpec("cheap_kernel", 3, "kernel size of the depthwise convolutions that make the others", (3, 5)),
        KnobSpec("activation", "silu", "activation", ("relu", "silu")),
        KnobSpec("dropout", 0.0, "share of the features that is dropped in training", low=0.0, high=0.8),
        RESOLUTION,
    )

    def build(self, values: Knobs, input_shape: Shape, n_outputs: int) -> nn.Module:
        """Returns the network."""
        n_in = values["width"]
        layers: list[nn.Module] = [conv_bn(2, input_shape[0], n_in, 3, activation=values["activation"])]
        for _ in range(values["stages"]):
            layers.append(_block(n_in, 2 * n_in, 2, values))
            n_in *= 2
            layers += [Residual(_block(n_in, n_in, 1, values)) for _ in range(values["depth"])]
        network = nn.Sequential(*layers, Head(n_in, n_outputs, values["dropout"]))
        return resized(network, input_shape, values["resolution"])

    def canonical(self, values: Knobs) -> dict[str, object]:
        """Returns the values; a full convolution has none of the block's own."""
        unused = ("phantom_ratio", "groups", "cheap_kernel") if values["block"] == "full" else ()
        return {**values, **{name: self.defaults()[name] for name in unused}}

    def broken(self, values: Knobs, input_shape: Shape) -> str | None:
        """Returns why these values build no valid network."""
        if why := images_only(self.name, input_shape):
            return why
        if values["width"] % 8:
            return f"width={values['width']} is no multiple of 8"
        return too_small(resized_to(input_shape, values["resolution"]), [2] * values["stages"])


def _block(n_in: int, n_out: int, stride: int, values: Knobs) -> nn.Module:
    if values["block"] == "full":
        return conv_bn(2, n_in, n_out, values["kernel"], stride, activation=values["activation"])
    return PhantomConv(n_in, n_out, stride, values)


class PhantomConv(nn.Module):
    """Makes a part of the channels by a grouped convolution, the others by depthwise ones of that part, and shuffles both.

    With share `rho`, kernels `k` and `k'` and `g` groups its convolutions have `k^2 n_in rho n_out / g + k'^2 (1 - rho) n_out`
    weights.

    Args:
        n_in: Input channels.
        n_out: Output channels.
        stride: Stride of the grouped convolution.
        values: The family's values.
    """

    def __init__(self, n_in: int, n_out: int, stride: int, values: Knobs) -> None:
        super().__init__()
        part, kind = int(n_out * values["phantom_ratio"]), values["activation"]
        self.repeats = n_out // part
        self.grouped = conv_bn(2, n_in, part, values["kernel"], stride, values["groups"], kind)
        self.cheap = conv_bn(2, part, n_out - part, values["cheap_kernel"], 1, part, kind)

    def extra_repr(self) -> str:
        """Returns the attribute that decides the order of the channels."""
        return f"repeats={self.repeats}"

    def forward(self, x: Tensor) -> Tensor:
        """`(n, n_in, h, w)` -> `(n, n_out, h / stride, w / stride)`."""
        made = self.grouped(x)
        both = torch.cat([made, self.cheap(made)], dim=1)
        n, channels, height, width = both.shape
        shuffled = both.reshape(n, self.repeats, channels // self.repeats, height, width).transpose(1, 2)
        return shuffled.reshape(n, channels, height, width)
