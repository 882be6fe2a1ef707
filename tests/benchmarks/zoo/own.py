"""Small networks of usual kinds, that need nothing but torch: each in a few lines, as people write them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(a: int, b: int, size: int = 3, **kwargs: object) -> nn.Sequential:
    """Returns a convolution that keeps the size, BatchNorm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(a, b, size, padding=size // 2, bias=False, **kwargs), nn.BatchNorm2d(b), nn.ReLU()
    )


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over channels."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Head(nn.Module):
    """Mean over the map, then a linear layer."""

    def __init__(self, *body: nn.Module, width: int) -> None:
        super().__init__()
        self.body, self.classifier = nn.Sequential(*body), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.body(x).mean((2, 3)))


class UNet(nn.Module):
    """Two levels; the way up by a transposed convolution and by interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 8), conv(8, 16), conv(16, 16)
        self.up, self.d, self.e = nn.ConvTranspose2d(16, 16, 2, stride=2), conv(32, 8), conv(16, 8)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        c = self.up(self.c(F.max_pool2d(b, 2)))
        d = self.d(torch.cat([b, c], 1))
        d = F.interpolate(d, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return self.out(self.e(torch.cat([a, d], 1)))


class Recurrent(nn.Module):
    """The last step of an LSTM or a GRU."""

    def __init__(self, kind: str, both: bool = False) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(6, 16, batch_first=True, bidirectional=both)
        self.out = nn.Linear(32 if both else 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0][:, -1])


class TCN(nn.Module):
    """Dilated causal convolutions with weight norm and shortcuts."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.first = norm(nn.Conv1d(6, 16, 3))
        self.rest = nn.ModuleList(norm(nn.Conv1d(16, 16, 3, dilation=d)) for d in (2, 4))
        self.out = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(F.pad(x, (2, 0))))
        for layer in self.rest:
            x = x + F.relu(layer(F.pad(x, (2 * layer.dilation[0], 0))))
        return self.out(x[..., -1])


class GNN(nn.Module):
    """Two graph convolutions over a fixed adjacency matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 5)
        edges = (torch.rand(10, 10) < 0.3).float() + torch.eye(10)
        self.register_buffer("adjacency", edges / edges.sum(1, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.adjacency @ self.a(x))
        return self.out(F.relu(torch.matmul(self.adjacency, self.b(x))).amax(1))


class GraphAttention(nn.Module):
    """The adjacency comes of the features."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.left, self.right, self.out = (
            nn.Linear(6, 16),
            nn.Linear(16, 1),
            nn.Linear(16, 1),
            nn.Linear(16, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        scores = F.leaky_relu(self.left(x) + self.right(x).transpose(1, 2), 0.2)
        return self.out(F.elu(scores.softmax(-1) @ x).mean(1))


class Mixer(nn.Module):
    """MLP-Mixer with two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(4))
        self.tokens = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)) for _ in range(2)
        )
        self.channels = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)) for _ in range(2)
        )
        self.out = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        for i in range(2):
            x = x + self.tokens[i](self.norms[2 * i](x).transpose(1, 2)).transpose(1, 2)
            x = x + self.channels[i](self.norms[2 * i + 1](x))
        return self.out(x.mean(1))


class Attention(nn.Module):
    """Self-attention with a joint projection, split by reshape and unbind."""

    def __init__(self, width: int, n_heads: int, causal: bool = False) -> None:
        super().__init__()
        self.n_heads, self.causal = n_heads, causal
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = (
            self.qkv(x)
            .reshape(n, tokens, 3, self.n_heads, width // self.n_heads)
            .permute(2, 0, 3, 1, 4)
            .unbind(0)
        )
        x = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(x.transpose(1, 2).reshape(n, tokens, width))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, causal: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2, self.attn = (
            nn.LayerNorm(width),
            nn.LayerNorm(width),
            Attention(width, 2, causal),
        )
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Class token, position embedding, two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 17, 16))
        self.blocks, self.norm, self.out = (
            nn.Sequential(Block(16), Block(16)),
            nn.LayerNorm(16),
            nn.Linear(16, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.out(self.norm(self.blocks(x))[:, 0])


class Decoder(nn.Module):
    """A causal language model over embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.norm, self.out = (
            nn.Sequential(Block(16, True), Block(16, True)),
            nn.LayerNorm(16),
            nn.Linear(16, 20),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.blocks(x)))


class TorchEncoder(nn.Module):
    """torch's own encoder layers."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder, self.out = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.encoder(x).mean(1))


class Rotary(nn.Module):
    """A Llama-like block: RMSNorm, rotary embedding, grouped queries, SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.norm2 = nn.RMSNorm(16), nn.RMSNorm(16)
        self.q, self.kv, self.o = nn.Linear(16, 16, False), nn.Linear(16, 8, False), nn.Linear(16, 16, False)
        self.gate, self.up, self.down = (
            nn.Linear(16, 32, False),
            nn.Linear(16, 32, False),
            nn.Linear(32, 16, False),
        )

    def rotated(self, x: Tensor) -> Tensor:
        angles = torch.outer(torch.arange(x.shape[2]).float(), 10000 ** (-torch.arange(2).float() / 2))
        a, b = x.chunk(2, -1)
        return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        y = self.norm(x)
        q = self.q(y).view(n, t, 4, 4).transpose(1, 2)
        k, v = (
            part.view(n, t, 1, 4).transpose(1, 2).expand(-1, 4, -1, -1) for part in self.kv(y).chunk(2, -1)
        )
        scores = self.rotated(q) @ self.rotated(k).transpose(-2, -1) / 2
        scores = scores.masked_fill(torch.ones(t, t).triu(1).bool(), float("-inf"))
        x = x + self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, t, 16))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, LayerNorm, two linear layers, layer scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(width, width, 7, padding=3, groups=width), nn.LayerNorm(width)
        self.up, self.down, self.gamma = (
            nn.Linear(width, 4 * width),
            nn.Linear(4 * width, width),
            nn.Parameter(torch.ones(width)),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.gamma * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)


class SingleHead(nn.Module):
    """SHViT: attention over a part of the channels."""

    def __init__(self, width: int = 32, part: int = 16) -> None:
        super().__init__()
        self.part, self.norm, self.qkv = part, nn.GroupNorm(1, part), nn.Conv2d(part, 16 + part, 1)
        self.proj = nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        _, _, h, w = x.shape
        a, b = torch.split(x, [self.part, x.shape[1] - self.part], dim=1)
        q, k, v = self.qkv(self.norm(a)).flatten(2).split([8, 8, self.part], dim=1)
        weights = (q.transpose(-2, -1) @ k * 8**-0.5).softmax(-1)
        a = (v @ weights.transpose(-2, -1)).reshape(-1, self.part, h, w)
        return x + self.proj(torch.cat([a, b], 1))


class Res2Net(nn.Module):
    """Channels split by a number; each part sees the one before."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.width, self.convs, self.last = (
            width // 4,
            nn.ModuleList(conv(8, 8) for _ in range(3)),
            conv(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = list(torch.split(x, self.width, 1))
        for i, layer in enumerate(self.convs):
            parts[i] = layer(parts[i] if i == 0 else parts[i] + parts[i - 1])
        return x + self.last(torch.cat(parts, 1))


class SelectiveKernel(nn.Module):
    """SK attention: a softmax over two branches, stacked."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width, self.branches = width, nn.ModuleList([conv(width, width), conv(width, width, 5)])
        self.reduce, self.select = conv(width, 8, 1), nn.Conv2d(8, 2 * width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        stacked = torch.stack([branch(x) for branch in self.branches], dim=1)
        weights = self.select(self.reduce(stacked.sum(1).mean((2, 3), keepdim=True)))
        weights = weights.view(x.size(0), 2, self.width, 1, 1).softmax(1)
        return (stacked * weights).sum(1)


class WindowAttention(nn.Module):
    """Swin: shifted windows, a relative position bias, a mask."""

    def __init__(self, width: int = 16, window: int = 4, size: int = 8) -> None:
        super().__init__()
        self.window, self.norm, self.attn = window, nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.proj, self.bias = nn.Linear(width, width), nn.Parameter(torch.randn((2 * window - 1) ** 2, 2))
        place = torch.stack(
            torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        ).flatten(1)
        relative = (place[:, :, None] - place[:, None]) + window - 1
        self.register_buffer("index", relative[0] * (2 * window - 1) + relative[1])
        region = torch.zeros(size, size)
        (
            region[: -window // 2, -window // 2 :],
            region[-window // 2 :, : -window // 2],
            region[-window // 2 :, -window // 2 :],
        ) = 1, 2, 3
        flat = (
            region.view(size // window, window, size // window, window)
            .permute(0, 2, 1, 3)
            .reshape(-1, window**2)
        )
        self.register_buffer("mask", (flat[:, None] != flat[:, :, None]).float() * -100)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        k = self.window
        y = self.norm(torch.roll(x.permute(0, 2, 3, 1), (-k // 2, -k // 2), (1, 2)))
        y = y.view(n, h // k, k, w // k, k, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, k * k, c)
        q, key, v = self.attn(y).reshape(-1, k * k, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ key.transpose(-2, -1) * (c // 2) ** -0.5
        scores = scores + self.bias[self.index.view(-1)].view(k * k, k * k, 2).permute(2, 0, 1)
        scores = scores.view(n, -1, 2, k * k, k * k) + self.mask[None, :, None]
        y = (scores.view(-1, 2, k * k, k * k).softmax(-1) @ v).transpose(1, 2).reshape(-1, k * k, c)
        y = self.proj(y).view(n, h // k, w // k, k, k, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return x + torch.roll(y, (k // 2, k // 2), (1, 2)).permute(0, 3, 1, 2)


class SqueezeExcite(nn.Module):
    """A gate per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, 8, 1), nn.Conv2d(8, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Inverted(nn.Module):
    """MobileNetV3's block: expand, depthwise, squeeze, project."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, 32, 1, bias=False), nn.BatchNorm2d(32), nn.Hardswish(),
            nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False), nn.BatchNorm2d(32), nn.Hardswish(), SqueezeExcite(32),
            nn.Conv2d(32, width, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Shuffle(nn.Module):
    """ShuffleNetV2: half of the channels pass, then channels are shuffled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(width // 2, width // 2, 1), conv(width // 2, width // 2, groups=width // 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        x = torch.cat([a, self.body(b)], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Reused(nn.Module):
    """One convolution three times."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.step = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = F.relu(self.step(x))
        return x


class Conformer(nn.Module):
    """Half-step feed-forward, attention, a gated convolution."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 32), nn.SiLU(), nn.Linear(32, width))
        self.norm, self.attn = nn.LayerNorm(width), nn.MultiheadAttention(width, 2, batch_first=True)
        self.conv_norm, self.point, self.depth = (
            nn.LayerNorm(width),
            nn.Conv1d(width, 2 * width, 1),
            nn.Conv1d(width, width, 5, padding=2, groups=width),
        )
        self.bn, self.last, self.out = nn.BatchNorm1d(width), nn.Conv1d(width, width, 1), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.a(x)
        y = self.norm(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        y = F.glu(self.point(self.conv_norm(x).transpose(1, 2)), dim=1)
        x = x + self.last(F.silu(self.bn(self.depth(y)))).transpose(1, 2)
        return self.out(x.mean(1))


class SuperResolution(nn.Module):
    """ESPCN: convolutions, then pixels out of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 5, padding=2), nn.Tanh(), nn.Conv2d(16, 4, 3, padding=1), nn.PixelShuffle(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Pyramid(nn.Module):
    """FPN: the upper level is added to the lower, enlarged."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.side, self.top = (
            conv(3, 16, stride=2),
            conv(16, 32, stride=2),
            nn.Conv2d(16, 16, 1),
            nn.Conv2d(32, 16, 1),
        )
        self.out = nn.Conv2d(16, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        top = self.top(self.b(a))
        return self.out(self.side(a) + F.interpolate(top, scale_factor=2.0, mode="nearest"))


class KeywordSpotter(nn.Module):
    """Log-mel-like frames by a strided Conv1d, then a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.frames, self.rnn, self.out = (
            nn.Conv1d(1, 16, 32, stride=16),
            nn.GRU(16, 16, 2, batch_first=True),
            nn.Linear(16, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        frames = torch.log1p(self.frames(x).abs())
        return self.out(self.rnn(frames.transpose(1, 2))[1][-1])


class Experts(nn.Module):
    """A dense mixture of experts: an einsum over a 3-D weight."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts, self.out = (
            nn.Linear(12, 4),
            nn.Parameter(torch.randn(4, 12, 16)),
            nn.Linear(16, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("nd,edh->neh", x, self.experts).relu()
        return self.out((y * self.gate(x).softmax(-1)[..., None]).sum(1))


class Embeddings(nn.Module):
    """Categories and numbers of a table: an embedding of columns that hold whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.body = nn.Sequential(nn.Linear(4 * 8 + 4, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5))

    def forward(self, x: Tensor) -> Tensor:
        ids = x[:, :4].abs().mul(8).long().clamp(max=19)
        return self.body(torch.cat([self.embedding(ids).flatten(1), x[:, 4:]], 1))


def autoencoder() -> nn.Module:
    """Returns strided convolutions and transposed ones."""
    return nn.Sequential(
        conv(3, 8, stride=2), conv(8, 16, stride=2), nn.ConvTranspose2d(16, 8, 3, 2, 1, 1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Sigmoid()
    )  # fmt: skip


def vgg() -> nn.Module:
    """Returns plain convolutions and a flattened head."""
    return nn.Sequential(
        conv(3, 16), nn.MaxPool2d(2), conv(16, 32), conv(32, 32), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 16, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 5)
    )  # fmt: skip


def classifier(*blocks: nn.Module, width: int) -> nn.Module:
    """Returns a stem, the blocks and a head."""
    return Head(conv(3, width, stride=2), *blocks, width=width)


def group_norm() -> nn.Module:
    """Returns a network without BatchNorm."""
    body = [
        part for a in (3, 16, 16) for part in (nn.Conv2d(a, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.SiLU())
    ]
    return Head(*body, width=16)


OWN = {
    "autoencoder": (autoencoder, (3, 16, 16)),
    "bilstm": (lambda: Recurrent("LSTM", both=True), (12, 6)),
    "conformer": (Conformer, (12, 16)),
    "convnext": (
        lambda: classifier(LayerNorm2d(16), ConvNeXtBlock(16), ConvNeXtBlock(16), width=16),
        (3, 16, 16),
    ),
    "decoder": (Decoder, (10, 16)),
    "embeddings": (Embeddings, (8,)),
    "experts": (Experts, (12,)),
    "gnn": (GNN, (10, 6)),
    "graph_attention": (GraphAttention, (10, 6)),
    "group_norm": (group_norm, (3, 16, 16)),
    "gru": (lambda: Recurrent("GRU"), (12, 6)),
    "keyword_spotter": (KeywordSpotter, (1, 400)),
    "lstm": (lambda: Recurrent("LSTM"), (12, 6)),
    "mixer": (Mixer, (3, 16, 16)),
    "mobilenetv3": (lambda: classifier(Inverted(16), Inverted(16), width=16), (3, 16, 16)),
    "pyramid": (Pyramid, (3, 16, 16)),
    "res2net": (lambda: classifier(Res2Net(), Res2Net(), width=32), (3, 16, 16)),
    "reused": (lambda: classifier(Reused(16), width=16), (3, 16, 16)),
    "rotary": (Rotary, (10, 16)),
    "shuffle": (lambda: classifier(Shuffle(16), Shuffle(16), width=16), (3, 16, 16)),
    "shvit": (lambda: classifier(SingleHead(), SingleHead(), width=32), (3, 16, 16)),
    "sk_attention": (lambda: classifier(SelectiveKernel(), width=16), (3, 16, 16)),
    "super_resolution": (SuperResolution, (1, 12, 12)),
    "tcn": (TCN, (6, 20)),
    "torch_encoder": (TorchEncoder, (10, 16)),
    "unet": (UNet, (3, 16, 16)),
    "vgg": (vgg, (3, 16, 16)),
    "vit": (ViT, (3, 16, 16)),
    "window_attention": (lambda: classifier(WindowAttention(), width=16), (3, 16, 16)),
}
"""By name: a function that returns the network, and the shape of one example."""
