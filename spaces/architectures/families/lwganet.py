"""LWGANet: blocks whose quarters of the channels see points, neighbours, a medium range and everything (arXiv 2501.10040)."""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from spaces.architectures.blocks import (
    ACTIVATIONS,
    RESOLUTION,
    conv_bn,
    drop_path,
    images_only,
    resized,
    resized_to,
)
from spaces.architectures.family import Family, Knobs, Shape
from spaces.architectures.group_attention import GlobalAttention, MediumRangeAttention, PointAttention
from spaces.knob_spec import KnobSpec

_N_STAGES = 4
PATHS = ("point", "local", "medium", "global")


class LWGANet(Family):
    """Patches, four stages of blocks that halve the size and double the channels, the mean, and two linear layers.

    The default is L0. L1 and L2 have stem_dim 64 and 96; L2 has depth2=4 and activation relu. Parameters of a 1,000-class head
    are those of the authors' code.
    """

    name: ClassVar[str] = "lwganet"
    knobs = (
        KnobSpec("stem_dim", 32, "channels of the first stage, a multiple of 8", low=8, high=256),
        *(
            KnobSpec(f"depth{at}", depth, f"blocks of stage {at}", low=1, high=8)
            for at, depth in enumerate((1, 2, 4, 2), 1)
        ),
        KnobSpec("att_kernel", 11, "length of the medium range's convolutions", (3, 5, 7, 9, 11)),
        KnobSpec("mlp_ratio", 2, "hidden channels of the feed-forward layers, of a stage's", (1, 2, 3, 4)),
        *(KnobSpec(path, True, f"whether a quarter of the channels has the {path} range", (False, True)) for path in PATHS),
        KnobSpec("activation", "gelu", "activation", ("relu", "gelu")),
        KnobSpec("features", 1280, "inputs of the last layer", low=8, high=4096),
        KnobSpec("drop_path", 0.0, "share of the residual branches that training leaves out", low=0.0, high=0.5),
        KnobSpec("patch", 4, "size of the patches", (1, 2, 4)),
        RESOLUTION,
    )  # fmt: skip

    def build(self, values: Knobs, input_shape: Shape, n_outputs: int) -> nn.Module:
        """Returns the network."""
        n_channels, *size = resized_to(input_shape, values["resolution"])
        dim = values["stem_dim"]
        layers: list[nn.Module] = [_patches(n_channels, dim, values["patch"])]
        side = [length // values["patch"] for length in size]
        for stage in range(1, _N_STAGES + 1):
            layers += [Block(dim, stage, (side[0], side[1]), values) for _ in range(values[f"depth{stage}"])]
            if stage < _N_STAGES:
                layers.append(Halving(dim, values["activation"]))
                dim, side = 2 * dim, [length // 2 for length in side]
        network = nn.Sequential(*layers, _Head(dim, values["features"], values["activation"], n_outputs))
        return resized(network, input_shape, values["resolution"])

    def canonical(self, values: Knobs) -> dict[str, object]:
        """Returns the values; without a medium range its kernel has no effect."""
        return {**values, **({} if values["medium"] else {"att_kernel": 11})}

    def broken(self, values: Knobs, input_shape: Shape) -> str | None:
        """Returns why these values build no valid network."""
        if why := images_only(self.name, input_shape):
            return why
        if values["stem_dim"] % 8:
            return f"stem_dim={values['stem_dim']} is no multiple of 8"
        size = resized_to(input_shape, values["resolution"])[1:]
        cell = values["patch"] * 2 ** (_N_STAGES - 1)
        if any(side % cell for side in size):
            return f"images of {size[0]} x {size[1]} pixels are no multiples of 8 patches of {values['patch']}, {cell}"
        return None


class Block(nn.Module):
    """The four ranges, a feed-forward layer over all channels, BatchNorm, and a shortcut: shapes stay.

    Args:
        dim: Channels, a multiple of 8.
        stage: 1 to 4, which decides what the global range is.
        size: Height and width of the image.
        values: The family's values.
    """

    def __init__(self, dim: int, stage: int, size: tuple[int, int], values: Knobs) -> None:
        super().__init__()
        quarter, kind = dim // 4, values["activation"]
        hidden = dim * values["mlp_ratio"]
        ranges: tuple[Callable[[], nn.Module], ...] = (
            partial(PointAttention, quarter, kind),
            partial(conv_bn, 2, quarter, quarter, 3, activation=kind),
            partial(MediumRangeAttention, quarter, values["att_kernel"], size),
            partial(GlobalAttention, quarter, stage, kind),
        )
        self.ranges = nn.ModuleList(
            make() if values[path] else nn.Identity() for path, make in zip(PATHS, ranges, strict=True)
        )
        self.mlp = nn.Sequential(
            conv_bn(2, dim, hidden, 1, activation=kind), nn.Conv2d(hidden, dim, 1, bias=False)
        )
        self.norm = nn.BatchNorm2d(dim)
        self.drop = values["drop_path"]

    def extra_repr(self) -> str:
        """Returns the attribute that no module shows."""
        return f"drop={self.drop}"

    def forward(self, x: Tensor) -> Tensor:
        """`(n, dim, h, w)` -> the same shape."""
        parts = zip(self.ranges, x.chunk(len(PATHS), dim=1), strict=True)
        mixed = torch.cat([layer(part) for layer, part in parts], dim=1)
        return x + self.norm(drop_path(self.mlp(mixed), self.drop, self.training))  # type: ignore[no-any-return]


class Halving(nn.Module):
    """Halves the size and doubles the channels by a convolution and by maxima, side by side."""

    def __init__(self, dim: int, activation: str) -> None:
        super().__init__()
        wide = 2 * dim
        self.expand = nn.Conv2d(dim, wide, 3, padding=1, groups=dim)
        self.conv = nn.Sequential(
            nn.Conv2d(wide, wide, 3, 2, 1, groups=wide), ACTIVATIONS[activation](), nn.BatchNorm2d(wide)
        )
        self.peaks = nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.BatchNorm2d(wide))
        self.fuse = nn.Conv2d(2 * wide, wide, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, dim, h, w)` -> `(n, 2 dim, h / 2, w / 2)`."""
        x = self.expand(x)
        return self.fuse(torch.cat([self.conv(x), self.peaks(x)], dim=1))  # type: ignore[no-any-return]


def _patches(n_channels: int, dim: int, patch: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(n_channels, dim, patch, patch, bias=False), nn.BatchNorm2d(dim))


class _Head(nn.Module):
    """The mean over all positions, a linear layer, an activation, and a linear layer."""

    def __init__(self, dim: int, features: int, activation: str, n_outputs: int) -> None:
        super().__init__()
        self.expand, self.activation = nn.Linear(dim, features, bias=False), ACTIVATIONS[activation]()
        self.linear = nn.Linear(features, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, dim, h, w)` -> `(n, n_outputs)`."""
        return self.linear(self.activation(self.expand(x.mean(dim=(2, 3)))))  # type: ignore[no-any-return]
