"""Vision transformers (Dosovitskiy et al. 2021, arXiv 2010.11929), small as DeiT's (Touvron et al. 2021, arXiv 2012.12877)."""

from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from spaces.architectures.attention import Attention
from spaces.architectures.blocks import RESOLUTION, drop_path, images_only, resized, resized_to
from spaces.architectures.family import Family, Knobs, Shape
from spaces.knob_spec import KnobSpec


class ViT(Family):
    """Patches as tokens, positions, blocks of attention and feed-forward layers, LayerNorm, a linear layer.

    The default is DeiT-Ti.
    """

    name: ClassVar[str] = "vit"
    knobs = (
        KnobSpec("patch", 16, "size of square patches", (1, 2, 4, 7, 8, 14, 16, 32)),
        KnobSpec("dim", 192, "channels of a token", low=8, high=1024),
        KnobSpec("depth", 12, "blocks", low=1, high=24),
        KnobSpec("heads", 3, "heads of the attention", (1, 2, 3, 4, 6, 8, 12, 16)),
        KnobSpec("mlp_ratio", 4.0, "hidden channels of the feed-forward layers, of a token's", low=0.5, high=8.0),
        KnobSpec("pool", "cls", "what is classified: a token of its own, or the mean of all", ("cls", "mean")),
        KnobSpec("drop_path", 0.0, "share of the residual branches that training leaves out", low=0.0, high=0.5),
        RESOLUTION,
    )  # fmt: skip

    def build(self, values: Knobs, input_shape: Shape, n_outputs: int) -> nn.Module:
        """Returns the network."""
        n_channels, height, width = resized_to(input_shape, values["resolution"])
        grid = (height // values["patch"], width // values["patch"])
        blocks = [
            Block(values["dim"], values["heads"], values["mlp_ratio"], values["drop_path"])
            for _ in range(values["depth"])
        ]
        network = VisionTransformer(
            n_channels, values["patch"], grid, values["dim"], blocks, values["pool"], n_outputs
        )
        return resized(network, input_shape, values["resolution"])

    def broken(self, values: Knobs, input_shape: Shape) -> str | None:
        """Returns why these values build no valid network."""
        if why := images_only(self.name, input_shape):
            return why
        if values["dim"] % values["heads"]:
            return f"heads={values['heads']} do not divide dim={values['dim']}"
        size = resized_to(input_shape, values["resolution"])[1:]
        if any(side % values["patch"] for side in size):
            return f"patch={values['patch']} does not divide images of {size[0]} x {size[1]} pixels"
        return None


class VisionTransformer(nn.Module):
    """`(n, n_channels, h, w)` -> `(n, n_outputs)`.

    Args:
        n_channels: Channels of the images.
        patch: Size of the patches.
        grid: Number of patches per axis.
        dim: Channels of a token.
        blocks: The blocks, `(n, t, dim)` -> `(n, t, dim)`.
        pool: `cls` adds a token in front of the others, and classifies it; `mean` classifies the mean of all.
        n_outputs: Number of outputs.

    Attributes:
        token_blocks: Name of the blocks, for those who reduce the tokens between them.
        token_grid: Number of patches per axis.
        class_tokens: Number of tokens in front of the patches'.
    """

    token_blocks = "blocks"  # noqa: S105 (a name)

    def __init__(
        self, n_channels: int, patch: int, grid: tuple[int, int], dim: int, blocks: list["Block"], pool: str, n_outputs: int
    ) -> None:  # fmt: skip
        super().__init__()
        has_class = pool == "cls"
        self.token_grid, self.class_tokens = grid, int(has_class)
        self.embed = nn.Conv2d(n_channels, dim, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim)) if has_class else None
        self.positions = nn.Parameter(torch.zeros(1, prod(grid) + self.class_tokens, dim))
        self.blocks = nn.Sequential(*blocks)
        self.norm, self.linear = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, n_outputs)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def extra_repr(self) -> str:
        """Returns the attributes that decide the shapes."""
        return f"grid={self.token_grid}, class_tokens={self.class_tokens}"

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        x = self.norm(self.blocks(self.tokens(x)))
        return self.linear(x.mean(dim=1) if self.class_token is None else x[:, 0])  # type: ignore[no-any-return]

    def tokens(self, x: Tensor) -> Tensor:
        """Returns the first block's tokens, `(n, t, dim)`: the class token, if there is one, and the patches row by row."""
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        return tokens + self.positions  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and a feed-forward layer, each behind LayerNorm and with a shortcut: `(n, t, dim)` -> `(n, t, dim)`."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, drop: float = 0.0) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.norm1, self.attention = nn.LayerNorm(dim, eps=1e-6), Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.drop = drop

    def extra_repr(self) -> str:
        """Returns the attribute that no module shows."""
        return f"drop={self.drop}"

    def forward(self, x: Tensor) -> Tensor:
        """Returns as many tokens."""
        return self.feed(self.attend(x)[0])

    def attend(self, x: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the tokens after the attention and its shortcut, and the attention, `(n, heads, queries, keys)`.

        Args:
            x: `(n, t, dim)`.
            bias: Added to the logits of each key, `(n, t)`.
        """
        normed = self.norm1(x)
        weights = self.attention.weights(normed, None if bias is None else bias[:, None, None])
        return x + drop_path(self.attention.mixed(weights, normed), self.drop, self.training), weights

    def feed(self, x: Tensor) -> Tensor:
        """Returns the tokens after the feed-forward layer and its shortcut."""
        return x + drop_path(self.mlp(self.norm2(x)), self.drop, self.training)
