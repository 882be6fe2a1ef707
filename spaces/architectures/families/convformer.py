"""CFSR: super-resolution by ConvFormer blocks with edge-preserving branches (Wu et al. 2024, arXiv 2401.05633)."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from spaces.architectures.family import Family, Knobs, Shape
from spaces.errors import ConfigError
from spaces.knob_spec import KnobSpec

GROUPS = 2  # of blocks, each with a shortcut around it
SMALL = 3  # size of the kernels that fold into a larger one
_MEAN = (0.4488, 0.4371, 0.4040)  # of photographs, in 0..1
_EDGES = (  # Sobel's filters along both axes, and Laplace's
    ((0, 1, -1), (0, 2, -2), (0, 1, -1)),
    ((1, 2, 1), (0, 0, 0), (-1, -2, -1)),
    ((0, 1, 0), (1, -4, 1), (0, 1, 0)),
)


class ConvFormer(Family):
    """Blocks of a gated large depthwise convolution and a feed-forward network with a depthwise convolution, and a pixel shuffle.

    Inputs are images `(channels, height, width)` with values in 0..1, outputs images `(n_outputs, factor * height, factor *
    width)`. In training the depthwise convolutions have branches beside them, which export folds into one kernel. The
    defaults are the published network.

    Args:
        factor: Enlargement; 1 for tasks such as denoising.
        layer_scale: First value of the factors on the blocks' branches: 1e-6 in the published trainings, of a million steps.

    Raises:
        ConfigError: The factor is no whole number above 0, or the scale is no number above 0.
    """

    name: ClassVar[str] = "convformer"
    knobs = (
        KnobSpec("width", 48, "channels of the blocks", low=4, high=128),
        KnobSpec("depth", 6, f"blocks of each of the {GROUPS} groups", low=1, high=12),
        KnobSpec("kernel", 9, "kernel size of the large convolution", (5, 7, 9, 11)),
        KnobSpec("mlp_ratio", 2, "hidden channels of the feed-forward network per channel", (1, 2, 3, 4)),
        KnobSpec(
            "edges",
            True,
            "whether branches of edge filters are trained beside the convolutions",
            (False, True),
        ),
    )

    def __init__(self, factor: int = 2, layer_scale: float = 0.1) -> None:
        if type(factor) is not int or factor < 1:
            raise ConfigError(f"model.family.factor must be a whole number from 1 on, not {factor!r}")
        if isinstance(layer_scale, bool) or not isinstance(layer_scale, int | float) or layer_scale <= 0:
            raise ConfigError(f"model.family.layer_scale must be a number above 0, not {layer_scale!r}")
        self.factor, self.layer_scale = factor, layer_scale

    def build(self, values: Knobs, input_shape: Shape, n_outputs: int) -> nn.Module:
        """Returns the network."""
        width = values["width"]
        groups = [
            _Group(
                *(
                    block
                    for _ in range(values["depth"])
                    for block in (
                        _Scaled(_Mixer(width, values["kernel"], values["edges"]), width, self.layer_scale),
                        _Scaled(_Mlp(width, values["mlp_ratio"], values["edges"]), width, self.layer_scale),
                    )
                ),
                nn.Conv2d(width, width, 1),
            )
            for _ in range(GROUPS)
        ]
        return _Network(input_shape[0], width, groups, n_outputs, self.factor)

    def broken(self, values: Knobs, input_shape: Shape) -> str | None:
        """Returns why these values build no valid network."""
        if len(input_shape) != 3:
            return f"{self.name} takes images (channels, height, width), not inputs of shape {input_shape}"
        return None


class _Network(nn.Module):
    """Images `(n, channels, height, width)` -> images `(n, n_outputs, factor * height, factor * width)`."""

    mean: Tensor

    def __init__(self, n_in: int, width: int, groups: list["_Group"], n_outputs: int, factor: int) -> None:
        super().__init__()
        means = _MEAN if n_in == n_outputs == len(_MEAN) else (0.0,)
        self.register_buffer("mean", torch.tensor(means).view(1, -1, 1, 1), persistent=False)
        self.first = nn.Conv2d(n_in, width, 3, padding=1)
        self.body = nn.Sequential(*groups, _Norm(width), nn.Conv2d(width, width, 3, padding=1))
        self.last = nn.Conv2d(width, n_outputs * factor**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(factor)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the images."""
        x = self.first(x - self.mean)
        return self.shuffle(self.last(self.body(x) + x)) + self.mean  # type: ignore[no-any-return]


class _Group(nn.Sequential):
    """Blocks and a convolution, with a shortcut around all."""

    def forward(self, x: Tensor) -> Tensor:
        """`(n, width, height, width)` -> the same shape."""
        return super().forward(x) + x  # type: ignore[no-any-return, no-untyped-call]


class _Scaled(nn.Module):
    """A shortcut around a part whose channels are scaled by learned factors."""

    def __init__(self, part: nn.Module, width: int, scale: float) -> None:
        super().__init__()
        self.part = part
        self.scale = nn.Parameter(torch.full((width, 1, 1), scale))

    def forward(self, x: Tensor) -> Tensor:
        """`(n, width, height, width)` -> the same shape."""
        return x + self.scale * self.part(x)  # type: ignore[no-any-return]


class _Norm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, width, height, width)` -> the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Mixer(nn.Module):
    """The large convolution of a projection times another projection: attention without a softmax."""

    def __init__(self, width: int, kernel: int, edges: bool) -> None:
        super().__init__()
        self.norm = _Norm(width)
        self.attention = nn.Sequential(
            nn.Conv2d(width, width, 1), nn.GELU(), _depthwise(width, kernel, edges)
        )
        self.value, self.project = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, width, height, width)` -> the same shape."""
        x = self.norm(x)
        return self.project(self.attention(x) * self.value(x))  # type: ignore[no-any-return]


class _Mlp(nn.Module):
    """The feed-forward network with a depthwise convolution."""

    def __init__(self, width: int, ratio: int, edges: bool) -> None:
        super().__init__()
        hidden = width * ratio
        self.norm = _Norm(width)
        self.expand = nn.Conv2d(width, hidden, 1)
        self.depthwise = _depthwise(hidden, SMALL, edges)
        self.contract = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, width, height, width)` -> the same shape."""
        x = functional.gelu(self.expand(self.norm(x)))
        return self.contract(x + functional.gelu(self.depthwise(x)))  # type: ignore[no-any-return]


def _depthwise(channels: int, kernel: int, edges: bool) -> nn.Module:
    if edges:
        return EdgeConvolution(channels, kernel)
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)


class EdgeConvolution(nn.Module):
    """A depthwise convolution, and beside it edge filters with a learned factor and bias per channel (section 3.3).

    Where the kernel is larger than 3x3, there is also a 3x3 convolution. The branches' sum is one convolution, and computed so
    in training, too.

    Args:
        channels: Input and output channels.
        kernel: Odd kernel size.
    """

    filters: Tensor

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        like = nn.Conv2d(channels, channels, kernel, groups=channels)
        self.weight, self.bias = like.weight, like.bias
        small = nn.Conv2d(channels, channels, SMALL, groups=channels) if kernel > SMALL else None
        self.small_weight = None if small is None else small.weight
        self.small_bias = None if small is None else small.bias
        self.factors = nn.Parameter(1e-3 * torch.randn(len(_EDGES), channels))
        self.offsets = nn.Parameter(1e-3 * torch.randn(len(_EDGES), channels))
        self.register_buffer("filters", torch.tensor(_EDGES, dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, channels, height, width)` -> the same shape."""
        weight, bias = self._sums()
        return functional.conv2d(x, weight, bias, padding=weight.shape[2] // 2, groups=len(weight))

    def folded(self) -> nn.Conv2d:
        """Returns the branches' sum as a convolution."""
        weight, bias = self._sums()
        n, size = len(weight), weight.shape[2]
        made = nn.Conv2d(n, n, size, padding=size // 2, groups=n, device=weight.device, dtype=weight.dtype)
        made.weight, made.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
        return made

    def _sums(self) -> tuple[Tensor, Tensor]:
        """Returns the kernel and the bias that equal all branches."""
        small = (self.factors[..., None, None] * self.filters.unsqueeze(1)).sum(0).unsqueeze(1)
        assert self.bias is not None
        bias = self.bias + self.offsets.sum(0)
        if self.small_weight is not None and self.small_bias is not None:
            small, bias = small + self.small_weight, bias + self.small_bias
        margin = (self.weight.shape[2] - SMALL) // 2
        return self.weight + functional.pad(small, [margin] * 4), bias
