"""SHViT: single-head attention over a part of the channels (Yun and Ro 2024, arXiv 2401.16456)."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from spaces.architectures.blocks import (
    RESOLUTION,
    Residual,
    SqueezeExcite,
    conv_bn,
    images_only,
    resized,
    resized_to,
    too_small,
)
from spaces.architectures.family import Family, Knobs, Shape
from spaces.knob_spec import KnobSpec

_N_STAGES = 3


class SHViT(Family):
    """A stem of convolutions with stride 2, three stages of blocks at half the size each, the mean, BatchNorm, a linear layer.

    The default is S1. S2 to S4 have dims 128, 308, 448 / 192, 352, 448 / 224, 336, 448 and depths 2, 4, 5 / 3, 5, 5 / 4, 7, 6.
    Parts of 3/14 of the channels are those of the authors' code in every stage with attention.
    """

    name: ClassVar[str] = "shvit"
    knobs = (
        *(
            KnobSpec(f"dim{at}", dim, f"channels of stage {at}", low=8, high=1024)
            for at, dim in enumerate((128, 224, 320), 1)
        ),
        *(
            KnobSpec(f"depth{at}", depth, f"blocks of stage {at}", low=1, high=16)
            for at, depth in enumerate((2, 4, 5), 1)
        ),
        KnobSpec("attention_from", 2, "first stage with attention; 4: none", (1, 2, 3, 4)),
        KnobSpec("partial_ratio", 3 / 14, "share of the channels that attention sees", low=0.05, high=1.0),
        KnobSpec("qk_dim", 16, "channels of a head's queries and keys", low=4, high=64),
        KnobSpec("heads", 1, "heads of the attention", (1, 2, 4)),
        KnobSpec("ffn_ratio", 2, "hidden channels of the feed-forward layers, of a stage's", (1, 2, 3, 4)),
        KnobSpec("stem_stride", 16, "stride of the stem, which has a convolution per factor of 2", (2, 4, 8, 16)),
        RESOLUTION,
    )  # fmt: skip

    def build(self, values: Knobs, input_shape: Shape, n_outputs: int) -> nn.Module:
        """Returns the network."""
        dims = [values[f"dim{at}"] for at in range(1, _N_STAGES + 1)]
        layers = _stem(input_shape[0], dims[0], values["stem_stride"])
        for at, dim in enumerate(dims, 1):
            if at > 1:
                layers += _downsample(dims[at - 2], dim, values["ffn_ratio"])
            for _ in range(values[f"depth{at}"]):
                layers += _block(dim, values, at >= values["attention_from"])
        network = nn.Sequential(*layers, _Head(dims[-1], n_outputs))
        return resized(network, input_shape, values["resolution"])

    def canonical(self, values: Knobs) -> dict[str, object]:
        """Returns the values; those of the attention have no effect where there is none."""
        unused = ("partial_ratio", "qk_dim", "heads") if values["attention_from"] > _N_STAGES else ()
        return {**values, **{name: self.defaults()[name] for name in unused}}

    def broken(self, values: Knobs, input_shape: Shape) -> str | None:
        """Returns why these values build no valid network."""
        if why := images_only(self.name, input_shape):
            return why
        for at in range(values["attention_from"], _N_STAGES + 1):
            part = _part(values[f"dim{at}"], values["partial_ratio"])
            if part < 1 or part % values["heads"]:
                return f"partial_ratio of dim{at}={values[f'dim{at}']} are {part} channels, which heads={values['heads']} do not divide"
        if values["dim1"] % (values["stem_stride"] // 2):
            return f"dim1={values['dim1']} must be a multiple of {values['stem_stride'] // 2} for stem_stride={values['stem_stride']}"
        return too_small(resized_to(input_shape, values["resolution"]), [values["stem_stride"]])


def _part(dim: int, ratio: float) -> int:
    return int(dim * ratio + 1e-6)


def _stem(n_in: int, dim: int, stride: int) -> list[nn.Module]:
    """Returns convolutions with stride 2 whose channels double up to `dim`."""
    layers: list[nn.Module] = []
    while stride > 1:
        stride //= 2
        n_out = dim // stride
        layers.append(conv_bn(2, n_in, n_out, 3, 2, activation="relu" if stride > 1 else "none"))
        n_in = n_out
    return layers


def _block(dim: int, values: Knobs, attends: bool) -> list[nn.Module]:
    found: list[nn.Module] = [Residual(_depthwise(dim))]
    if attends:
        part = _part(dim, values["partial_ratio"])
        found.append(Residual(PartialAttention(dim, part, values["qk_dim"], values["heads"])))
    return [*found, Residual(_feed_forward(dim, values["ffn_ratio"]))]


def _downsample(n_in: int, n_out: int, ratio: int) -> list[nn.Module]:
    hidden = 4 * n_in
    return [
        Residual(_depthwise(n_in)),
        Residual(_feed_forward(n_in, ratio)),
        conv_bn(2, n_in, hidden, 1),
        conv_bn(2, hidden, hidden, 3, 2, groups=hidden),
        SqueezeExcite(2, hidden, hidden // 4),
        conv_bn(2, hidden, n_out, 1, activation="none"),
        Residual(_depthwise(n_out)),
        Residual(_feed_forward(n_out, ratio)),
    ]


def _depthwise(dim: int) -> nn.Module:
    return _starts_at_0(conv_bn(2, dim, dim, 3, groups=dim, activation="none"))


def _feed_forward(dim: int, ratio: int) -> nn.Module:
    return nn.Sequential(
        conv_bn(2, dim, dim * ratio, 1), _starts_at_0(conv_bn(2, dim * ratio, dim, 1, activation="none"))
    )


def _starts_at_0(layer: nn.Sequential) -> nn.Sequential:
    """Returns a convolution with BatchNorm whose output is 0 at first, so that a residual branch starts as nothing."""
    norm = layer[1]
    assert isinstance(norm, nn.BatchNorm2d)
    nn.init.zeros_(norm.weight)
    return layer


class PartialAttention(nn.Module):
    """Attention among all positions over the first channels; the others pass.

    Args:
        dim: Channels.
        part: Channels that attention sees.
        qk_dim: Channels of a head's queries and keys.
        heads: Number of heads; 1 in the paper.
    """

    def __init__(self, dim: int, part: int, qk_dim: int, heads: int = 1) -> None:
        super().__init__()
        self.sizes = (part, dim - part)
        self.heads, self.qk_dim, self.scale = heads, qk_dim, qk_dim**-0.5
        self.norm = nn.GroupNorm(1, part)
        self.qkv = conv_bn(2, part, 2 * heads * qk_dim + part, 1, activation="none")
        self.project = nn.Sequential(nn.ReLU(), _starts_at_0(conv_bn(2, dim, dim, 1, activation="none")))

    def extra_repr(self) -> str:
        """Returns the attributes that decide the shapes."""
        return f"sizes={self.sizes}, heads={self.heads}, qk_dim={self.qk_dim}"

    def forward(self, x: Tensor) -> Tensor:
        """`(n, dim, h, w)` -> the same shape."""
        seen, rest = torch.split(x, list(self.sizes), dim=1)
        widths = [self.heads * self.qk_dim] * 2 + [self.sizes[0]]
        q, k, v = torch.split(self.qkv(self.norm(seen)), widths, dim=1)
        q, k, v = (
            torch.unflatten(part.flatten(2), 1, (self.heads, -1)) for part in (q, k, v)
        )  # (n, heads, channels, positions)
        weights = (q.transpose(-2, -1) @ k * self.scale).softmax(dim=-1)
        attended = (v @ weights.transpose(-2, -1)).reshape(seen.shape)
        return self.project(torch.cat([attended, rest], dim=1))  # type: ignore[no-any-return]


class _Head(nn.Module):
    """The mean over all positions, BatchNorm, and a linear layer."""

    def __init__(self, dim: int, n_outputs: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(dim), nn.Linear(dim, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, dim, h, w)` -> `(n, n_outputs)`."""
        return self.linear(self.norm(x.mean(dim=(2, 3))))  # type: ignore[no-any-return]
