"""Light-weight grouped attention: each quarter of the channels is weighed over another range of positions.

Lu et al. 2025 (LWGANet, arXiv 2501.10040); sizes and order of the layers are those of the authors' code.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from spaces.architectures.attention import Attention
from spaces.architectures.blocks import ACTIVATIONS, conv_bn

_BLUR = (1.0, 3.0, 3.0, 1.0)  # filter of the anti-aliased pooling (Zhang 2019, arXiv 1904.11486)
_HEAD_DIM = 4
_STRIDE = 3  # of the medium range's pooling


class PointAttention(nn.Module):
    """Adds the input times a gate of each position's own channels."""

    def __init__(self, dim: int, activation: str) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            conv_bn(2, dim, 4 * dim, 1, activation=activation), nn.Conv2d(4 * dim, dim, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(n, dim, h, w)` -> the same shape."""
        return x + x * torch.sigmoid(self.gate(x))


class MediumRangeAttention(nn.Module):
    """Gates by long, thin depthwise convolutions of the pooled image: vertical, horizontal and along both diagonals.

    Args:
        dim: Channels.
        kernel: Odd length of the convolutions.
        size: Height and width of the image.
    """

    def __init__(self, dim: int, kernel: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        # a reflection needs more pixels than it adds; where there are too few, the last one is repeated
        self.padding = "reflect" if min(size) > 2 else "replicate"
        tall, wide = (kernel, 3), (3, kernel)
        self.vertical, self.horizontal, self.diagonal, self.antidiagonal = (
            nn.Conv2d(dim, dim, shape, 1, (shape[0] // 2, shape[1] // 2), groups=dim, bias=False)
            for shape in (tall, wide, tall, wide)
        )
        self.norm = nn.BatchNorm2d(dim)
        self.blur = nn.Conv2d(dim, dim, len(_BLUR), _STRIDE, groups=dim, bias=False).requires_grad_(False)
        taps = torch.tensor(_BLUR, device="cpu")
        self.blur.weight.copy_((taps[:, None] * taps / taps.sum() ** 2).expand_as(self.blur.weight))

    def extra_repr(self) -> str:
        """Returns the attributes that decide the shapes."""
        return f"size={self.size}"

    def forward(self, x: Tensor) -> Tensor:
        """`(n, dim, h, w)` -> the same shape."""
        pooled = self.blur(functional.pad(functional.max_pool2d(x, 3, 1, 1), (1, 2, 1, 2), self.padding))
        height, width = pooled.shape[-2:]
        along = unsheared(self.diagonal(sheared(pooled)), width)
        across = unsheared(self.antidiagonal(sheared(pooled.mT).mT).mT, height).mT
        gate = torch.sigmoid(self.norm(self.vertical(pooled) + self.horizontal(pooled) + along + across))
        return x * functional.interpolate(gate, self.size, mode="nearest")


def sheared(x: Tensor) -> Tensor:
    """Moves row `i` by `i` to the right: `(n, c, h, w)` -> `(n, c, h, w + h - 1)`, with zeros where nothing is."""
    height, width = x.shape[-2:]
    flat = functional.pad(x, (0, height)).flatten(2)
    return torch.unflatten(flat[..., : height * (width + height - 1)], 2, (height, width + height - 1))


def unsheared(x: Tensor, width: int) -> Tensor:
    """Undoes `sheared`: `(n, c, h, w + h - 1)` -> `(n, c, h, w)`."""
    height = x.shape[-2]
    flat = functional.pad(x.flatten(2), (0, height))
    return torch.unflatten(flat, 2, (height, width + height))[..., :width]


class Peaks(nn.Module):
    """Applies a module to the maxima of 2 x 2 cells, and puts its outputs where the maxima were; zeros elsewhere."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """`(n, c, h, w)` with even sizes -> the same shape."""
        height, width = x.shape[-2:]
        cells = torch.unflatten(torch.unflatten(x, 3, (width // 2, 2)), 2, (height // 2, 2))
        cells = cells.transpose(3, 4).flatten(4)  # (n, c, h / 2, w / 2, 4)
        values, places = cells.max(dim=-1)
        where = places[..., None] == torch.arange(4, device=x.device)
        spread = self.inner(values)[..., None] * where.to(x.dtype)
        return torch.unflatten(spread, 4, (2, 2)).transpose(3, 4).flatten(4).flatten(2, 3)


class SelectiveKernel(nn.Module):
    """Gates by two large depthwise convolutions, which each position mixes in its own proportion (Li et al. 2023, arXiv 2303.09030)."""

    def __init__(self, dim: int, activation: str) -> None:
        super().__init__()
        self.enter, self.activation, self.leave = (
            nn.Conv2d(dim, dim, 1),
            ACTIVATIONS[activation](),
            nn.Conv2d(dim, dim, 1),
        )
        self.near = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.far = nn.Conv2d(dim, dim, 7, padding=9, dilation=3, groups=dim)
        self.near_half, self.far_half = nn.Conv2d(dim, dim // 2, 1), nn.Conv2d(dim, dim // 2, 1)
        self.select, self.gate = nn.Conv2d(2, 2, 7, padding=3), nn.Conv2d(dim // 2, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, dim, h, w)` -> the same shape."""
        x = self.activation(self.enter(x))
        near = self.near(x)
        halves = self.near_half(near), self.far_half(self.far(near))
        both = torch.cat(halves, dim=1)
        summary = torch.cat([both.mean(dim=1, keepdim=True), both.amax(dim=1, keepdim=True)], dim=1)
        shares = torch.sigmoid(self.select(summary))
        mixed = halves[0] * shares[:, :1] + halves[1] * shares[:, 1:]
        return self.leave(x * self.gate(mixed))  # type: ignore[no-any-return]


class ImageAttention(nn.Module):
    """Attention among all positions, with heads of four channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention = Attention(dim, max(1, dim // _HEAD_DIM), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, dim, h, w)` -> the same shape."""
        mixed = self.attention(x.flatten(2).transpose(1, 2)).transpose(1, 2)
        return torch.unflatten(mixed, 2, x.shape[-2:])


class GlobalAttention(nn.Module):
    """The widest range: of the peaks by large convolutions (stages 1, 2) or attention (3), or attention of all (4).

    Args:
        dim: Channels.
        stage: 1 to 4.
        activation: Activation of the large convolutions.
    """

    def __init__(self, dim: int, stage: int, activation: str) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(dim)
        if stage == 3:
            self.inner: nn.Module = Peaks(nn.Sequential(ImageAttention(dim), norm))
        else:
            self.inner = ImageAttention(dim) if stage == 4 else Peaks(SelectiveKernel(dim, activation))
        self.norm = nn.Identity() if stage == 3 else norm

    def forward(self, x: Tensor) -> Tensor:
        """`(n, dim, h, w)` -> the same shape."""
        return self.norm(x + self.inner(x))  # type: ignore[no-any-return]
