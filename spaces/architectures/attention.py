"""Attention among tokens (Vaswani et al. 2017, arXiv 1706.03762, section 3.2), in parts that others can use."""

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Every token becomes a mean of all, weighted by the softmax of `q k / sqrt(d)`, per head.

    Args:
        dim: Channels of a token.
        heads: Number of heads, which divides `dim`.
        bias: Whether the linear layers have biases.
    """

    def __init__(self, dim: int, heads: int, bias: bool = True) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.q, self.k, self.v = (nn.Linear(dim, dim, bias=bias) for _ in range(3))
        self.project = nn.Linear(dim, dim, bias=bias)

    def extra_repr(self) -> str:
        """Returns the attributes that decide the shapes."""
        return f"heads={self.heads}"

    def forward(self, x: Tensor) -> Tensor:
        """`(n, t, dim)` -> `(n, t, dim)`."""
        return self.mixed(self.weights(x), x)

    def weights(self, x: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Returns how much of each token (last axis) goes into each token, `(n, heads, t, t)`; rows sum to 1.

        Args:
            x: `(n, t, dim)`.
            offsets: Added to the logits, e.g. of shape `(n, 1, 1, t)`.
        """
        logits = self.split(self.q(x)) @ self.split(self.k(x)).transpose(-2, -1) * self.scale
        return torch.softmax(logits if offsets is None else logits + offsets, dim=-1)

    def mixed(self, weights: Tensor, x: Tensor) -> Tensor:
        """Returns the tokens' values, `(n, t, dim)`, mixed by `weights`."""
        return self.project((weights @ self.split(self.v(x))).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def split(self, x: Tensor) -> Tensor:
        """`(n, t, dim)` -> `(n, heads, t, dim / heads)`."""
        return torch.unflatten(x, 2, (self.heads, -1)).transpose(1, 2)
