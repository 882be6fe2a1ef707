"""Small networks of the usual kinds, for `usual_networks.py`: written plainly, as people write them.

Inputs are `(n, 3, 32, 32)` images or `(n, 6, 128)` windows of six sensor channels; outputs are logits, `(n, n_classes)`, of
the U-Net `(n, n_classes, 32, 32)`.
"""

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """A transformer's encoder block, normalized first. Tokens are `(n, t, dim)`."""

    def __init__(self, dim: int, heads: int, ratio: int = 4) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, ratio * dim), nn.GELU(), nn.Linear(ratio * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the tokens, same shape."""
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """A vision transformer with a class token and learned positions, on 4 x 4 patches of convolved images."""

    def __init__(self, dim: int = 96, depth: int = 4, heads: int = 4, n_classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, dim, 4, 4))
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 17, dim))
        self.blocks = nn.Sequential(*(Block(dim, heads, 2) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


class Inverted(nn.Module):
    """An inverted bottleneck of MobileNetV2 with SiLU."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        inner = 3 * n_in
        self.layers = nn.Sequential(
            nn.Conv2d(n_in, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.SiLU(),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.SiLU(),
            nn.Conv2d(inner, n_out, 1, bias=False), nn.BatchNorm2d(n_out),
        )  # fmt: skip
        self.adds = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        """Returns the feature map."""
        return x + self.layers(x) if self.adds else self.layers(x)


class MobileViTBlock(nn.Module):
    """Convolutions around transformer blocks over the pixels that lie at the same place of 2 x 2 patches."""

    def __init__(self, channels: int, dim: int, depth: int) -> None:
        super().__init__()
        self.local = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels), nn.SiLU(),
            nn.Conv2d(channels, dim, 1, bias=False),
        )  # fmt: skip
        self.blocks = nn.Sequential(*(Block(dim, 4, 2) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.project = nn.Sequential(
            nn.Conv2d(dim, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.SiLU()
        )
        self.fuse = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels), nn.SiLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns the feature map, same shape."""
        y = self.local(x)
        n, c, h, w = y.shape
        y = y.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 2, 4, 1).reshape(n * 4, h * w // 4, c)
        y = self.norm(self.blocks(y))
        y = y.reshape(n, 2, 2, h // 2, w // 2, c).permute(0, 5, 3, 1, 4, 2).reshape(n, c, h, w)
        return self.fuse(torch.cat([x, self.project(y)], 1))


class MobileViT(nn.Module):
    """Inverted bottlenecks and two MobileViT blocks."""

    def __init__(self, n_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.SiLU())
        self.layers = nn.Sequential(
            Inverted(16, 24, 1), Inverted(24, 32, 2), MobileViTBlock(32, 64, 2),
            Inverted(32, 48, 2), MobileViTBlock(48, 64, 2),
        )  # fmt: skip
        self.head = nn.Linear(48, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        return self.head(self.layers(self.stem(x)).mean((2, 3)))


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution, LayerNorm over channels and a scaled MLP."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.expand, self.act, self.reduce = nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        self.scale = nn.Parameter(0.1 * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the feature map, same shape."""
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.reduce(self.act(self.expand(y)))
        return x + y.permute(0, 3, 1, 2)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of `(n, c, h, w)`."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns the feature map, same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Three stages of ConvNeXt blocks."""

    def __init__(self, dims: tuple[int, ...] = (24, 48, 96), depth: int = 2, n_classes: int = 10) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(3, dims[0], 2, 2), ChannelNorm(dims[0])]
        for i, dim in enumerate(dims):
            if i:
                parts += [ChannelNorm(dims[i - 1]), nn.Conv2d(dims[i - 1], dim, 2, 2)]
            parts += [ConvNeXtBlock(dim) for _ in range(depth)]
        self.features = nn.Sequential(*parts)
        self.norm, self.head = nn.LayerNorm(dims[-1]), nn.Linear(dims[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        return self.head(self.norm(self.features(x).mean((2, 3))))


class Recurrent(nn.Module):
    """A recurrent network over time and a linear layer on its last step."""

    def __init__(self, kind: str, hidden: int = 64, layers: int = 2, n_classes: int = 6) -> None:
        super().__init__()
        cell = nn.LSTM if kind == "lstm" else nn.GRU
        self.cells = cell(6, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        return self.head(self.cells(x.transpose(1, 2))[0][:, -1])


class ConformerBlock(nn.Module):
    """Half a feed-forward layer, attention, convolution, half a feed-forward layer. Frames are `(n, t, dim)`."""

    def __init__(self, dim: int, heads: int, kernel: int = 15) -> None:
        super().__init__()
        self.first, self.second = self._feed(dim), self._feed(dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.convolution = nn.Sequential(
            nn.Conv1d(dim, 2 * dim, 1), nn.GLU(1),
            nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim), nn.BatchNorm1d(dim), nn.SiLU(),
            nn.Conv1d(dim, dim, 1),
        )  # fmt: skip

    @staticmethod
    def _feed(dim: int) -> nn.Sequential:
        return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.SiLU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the frames, same shape."""
        x = x + 0.5 * self.first(x)
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.convolution(self.norm2(x).transpose(1, 2)).transpose(1, 2)
        return self.norm3(x + 0.5 * self.second(x))


class Conformer(nn.Module):
    """A convolution that halves time twice, positions, Conformer blocks and the mean over time."""

    def __init__(self, dim: int = 64, depth: int = 2, n_classes: int = 6) -> None:
        super().__init__()
        self.sub = nn.Sequential(
            nn.Conv1d(6, dim, 5, 2, 2), nn.ReLU(), nn.Conv1d(dim, dim, 5, 2, 2), nn.ReLU()
        )
        self.positions = nn.Parameter(0.02 * torch.randn(1, 32, dim))
        self.blocks = nn.Sequential(*(ConformerBlock(dim, 4) for _ in range(depth)))
        self.head = nn.Linear(dim, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        return self.head(self.blocks(self.sub(x).transpose(1, 2) + self.positions).mean(1))


def double(n_in: int, n_out: int) -> nn.Sequential:
    """Returns two convolutions with BatchNorm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(),
        nn.Conv2d(n_out, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(),
    )  # fmt: skip


class UNet(nn.Module):
    """Two levels down and up, with skip connections and transposed convolutions."""

    def __init__(self, width: int = 12, n_classes: int = 11) -> None:
        super().__init__()
        self.down1, self.down2 = double(3, width), double(width, 2 * width)
        self.bottom, self.pool = double(2 * width, 4 * width), nn.MaxPool2d(2)
        self.rise2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.rise1 = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.up2, self.up1 = double(4 * width, 2 * width), double(2 * width, width)
        self.head = nn.Conv2d(width, n_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits of every pixel."""
        first = self.down1(x)
        second = self.down2(self.pool(first))
        x = self.rise2(self.bottom(self.pool(second)))
        x = self.rise1(self.up2(torch.cat([x, second], 1)))
        return self.head(self.up1(torch.cat([x, first], 1)))
