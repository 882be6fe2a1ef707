"""Llama-style language models (Touvron et al. 2023, arXiv 2302.13971), with the checkpoints of llama2.c."""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from spaces.errors import ConfigError, InputError
from spaces.models.base import LoadContext
from spaces.models.checkpoint import CheckpointModel
from spaces.models.torch.state_dict import load_state_dict
from spaces.models.zoo.language.llama2c import read_sizes, read_weights
from spaces.models.zoo.sequences.text_cnn import check_ids
from spaces.stages.artifact import Artifact
from spaces.stages.torch_artifact import torch_artifact

_EPSILON, _BASE = 1e-5, 10_000.0  # of RMSNorm and of the rotary embedding


@dataclass(frozen=True)
class LlamaSizes:
    """Sizes of a network; the defaults are stories15M's, 15,191,712 parameters.

    Attributes:
        dim: Width of the residual stream.
        ffn_dim: Inner width of the feed-forward networks.
        n_layers: Number of blocks.
        n_heads: Heads of the queries.
        n_kv_heads: Heads of the keys and values, a divisor of `n_heads`.
        vocabulary_size: Number of token ids.
        max_length: Most tokens of a window.
    """

    dim: int = 288
    ffn_dim: int = 768
    n_layers: int = 6
    n_heads: int = 6
    n_kv_heads: int = 6
    vocabulary_size: int = 32_000
    max_length: int = 256

    def __post_init__(self) -> None:
        """Raises ConfigError if sizes are out of range or do not fit together."""
        for name, size in vars(self).items():
            if type(size) is not int or size < 1:
                raise ConfigError(f"model.{name} must be a whole number from 1 on, not {size!r}")
        if self.dim % (2 * self.n_heads):
            raise ConfigError(
                f"model.dim must be a multiple of twice model.n_heads={self.n_heads}, not {self.dim}"
            )
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(
                f"model.n_kv_heads must divide model.n_heads={self.n_heads}, not {self.n_kv_heads}"
            )

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.dim // self.n_heads


class LlamaModel(CheckpointModel):
    """A Llama with the weights of a `.bin` file of llama2.c, whose header states the sizes, or of a torch checkpoint.

    Args:
        checkpoint: The file; None keeps random weights.
        length: Tokens of a window.
        dim, ffn_dim, n_layers, n_heads, n_kv_heads, vocabulary_size, max_length: See `LlamaSizes`; without effect for a `.bin` file.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        length: int = 256,
        dim: int = 288,
        ffn_dim: int = 768,
        n_layers: int = 6,
        n_heads: int = 6,
        n_kv_heads: int = 6,
        vocabulary_size: int = 32_000,
        max_length: int = 256,
    ) -> None:
        super().__init__(checkpoint, [length], input_dtype="int64")
        self.length = length
        self._sizes = LlamaSizes(dim, ffn_dim, n_layers, n_heads, n_kv_heads, vocabulary_size, max_length)

    @property
    def sizes(self) -> LlamaSizes:
        """The network's sizes. Raises InputError if they are a file's that is missing, truncated or of another format."""
        if not self._is_llama2c:
            return self._sizes
        assert self.checkpoint is not None
        stated = read_sizes(self.checkpoint)
        if stated["vocabulary_size"] < 0:
            raise InputError(
                f"{self.checkpoint}: its output layer has a matrix of its own; one that shares the embedding is needed"
            )
        return LlamaSizes(**stated)

    def build(self) -> nn.Module:
        """Returns the network with random weights."""
        return Llama(self.sizes)

    def load(self, context: LoadContext) -> Artifact:
        """Returns the network in eval mode.

        Raises:
            InputError: The checkpoint is missing, damaged or of another format; windows are longer than it was made for, or a token
                of the task has no vector.
        """
        sizes = self.sizes
        if self.length > sizes.max_length:
            raise InputError(
                f"model.length must be at most {sizes.max_length}, the most tokens of the network, not {self.length}"
            )
        if context.train is not None:
            check_ids(context.train, sizes.vocabulary_size)
        if not self._is_llama2c:
            return super().load(context)
        assert self.checkpoint is not None
        module = self.build_seeded(context.seed)
        load_state_dict(module, read_weights(self.checkpoint), self.checkpoint)
        return torch_artifact(module, self.input)

    @property
    def _is_llama2c(self) -> bool:
        return self.checkpoint is not None and self.checkpoint.suffix == ".bin"


class Llama(nn.Module):
    """Token ids `(n, length)` int64 -> `(n, length, vocabulary_size)` logits of the token after each.

    The output layer's matrix is the embedding's.
    """

    def __init__(self, sizes: LlamaSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.embedding = nn.Embedding(sizes.vocabulary_size, sizes.dim)
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes.n_layers))
        self.norm = RMSNorm(sizes.dim)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Returns logits."""
        cos, sin = rotary_tables(self.sizes, ids.shape[1])
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.logits(self.norm(x))

    def logits(self, x: Tensor) -> Tensor:
        """Returns logits for what the last norm yields; the constant matrix comes first, so that its only copy is the embedding's."""
        return (self.embedding.weight @ x.transpose(1, 2)).transpose(1, 2)


class Block(nn.Module):
    """Attention and a feed-forward network, each behind a norm and beside a shortcut."""

    def __init__(self, sizes: LlamaSizes) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(sizes.dim)
        self.attention = Attention(sizes)
        self.ffn_norm = RMSNorm(sizes.dim)
        self.ffn = SwiGLU(sizes.dim, sizes.ffn_dim)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Returns `(n, length, dim)`."""
        x = x + self.attention(self.attention_norm(x), cos, sin)
        return x + self.ffn(self.ffn_norm(x))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Causal attention with rotary positions (Su et al. 2021, arXiv 2104.09864), pairs of adjacent values being rotated."""

    def __init__(self, sizes: LlamaSizes) -> None:
        super().__init__()
        self.sizes = sizes
        kv_dim = sizes.head_dim * sizes.n_kv_heads
        self.query = nn.Linear(sizes.dim, sizes.dim, bias=False)
        self.key = nn.Linear(sizes.dim, kv_dim, bias=False)
        self.value = nn.Linear(sizes.dim, kv_dim, bias=False)
        self.output = nn.Linear(sizes.dim, sizes.dim, bias=False)

    def extra_repr(self) -> str:
        """Returns the attributes that decide the shapes; they are part of a network's digest."""
        return f"n_heads={self.sizes.n_heads}, n_kv_heads={self.sizes.n_kv_heads}"

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Returns `(n, length, dim)` of inputs of that shape."""
        query, key, value = self.projected(x, cos, sin)
        length = x.shape[1]
        future = torch.full((length, length), float("-inf")).triu(1)
        return self.attended(query, key, value, future)

    def projected(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries `(n, n_heads, length, head_dim)`, keys and values `(n, n_kv_heads, length, head_dim)`."""
        query, key, value = (self._heads(layer(x)) for layer in (self.query, self.key, self.value))
        return rotated(query, cos, sin), rotated(key, cos, sin), value

    def attended(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Returns `(n, length, dim)`; the mask is added to the scores."""
        groups = self.sizes.n_heads // self.sizes.n_kv_heads
        if groups > 1:
            key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
        scores = query @ key.transpose(2, 3) / sqrt(self.sizes.head_dim) + mask
        joined = (functional.softmax(scores, dim=-1) @ value).transpose(1, 2).flatten(2)
        return self.output(joined)  # type: ignore[no-any-return]

    def _heads(self, x: Tensor) -> Tensor:
        return _unflattened(x, self.sizes.head_dim).transpose(1, 2)


class SwiGLU(nn.Module):
    """A feed-forward network with a gate (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, inner, bias=False)
        self.up = nn.Linear(dim, inner, bias=False)
        self.down = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns `down(silu(gate(x)) * up(x))`."""
        return self.down(functional.silu(self.gate(x)) * self.up(x))  # type: ignore[no-any-return]


class RMSNorm(nn.Module):
    """Division by the root of the mean square, and a factor for each value (Zhang & Sennrich 2019, arXiv 1910.07467)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Returns a tensor of the same shape."""
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + _EPSILON) * self.weight


def rotary_tables(sizes: LlamaSizes, length: int) -> tuple[Tensor, Tensor]:
    """Returns cosines and sines of the angles `position * 10000^(-2i / head_dim)`, each `(length, head_dim / 2)` float32."""
    frequencies = _BASE ** (-torch.arange(0, sizes.head_dim, 2, dtype=torch.float64) / sizes.head_dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies)
    return angles.cos().float(), angles.sin().float()


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Returns `(n, heads, length, head_dim)` with each pair of adjacent values turned by its angle."""
    even, odd = _unflattened(x, 2).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def _unflattened(x: Tensor, size: int) -> Tensor:
    """Returns the last axis as two, the second of `size`."""
    found: Tensor = x.unflatten(-1, (-1, size))  # type: ignore[no-untyped-call]
    return found
