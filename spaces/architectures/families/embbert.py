"""EmbBERT: a text encoder for tiny memories (Bravin et al. 2025, arXiv 2502.10001)."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from spaces.architectures.family import Family, Knobs, Shape
from spaces.errors import ConfigError
from spaces.knob_spec import KnobSpec
from spaces.models.zoo.sequences.text_cnn import check_ids
from spaces.stages.artifact import Split

_SEGMENTS = 3  # padding, the first text, and what follows the separator


class EmbBERT(Family):
    """Small vectors of tokens that are expanded, layers of attention without keys and values beside a convolution, and a head.

    Inputs are token ids `(length,)` int64; 0 is padding, which nothing is read from. The defaults are the published network.

    Args:
        vocabulary_size: Number of token ids.
        separator: The token id between two texts; None where there is one text.
        per_step: Whether each token is classified, `(n, length, n_outputs)`, and not the text.

    Raises:
        ConfigError: A size is no whole number above 0, or the separator is no token.
    """

    name: ClassVar[str] = "embbert"
    input_dtype: ClassVar[str] = "int64"
    knobs = (
        KnobSpec("reduced", 16, "values of a token's own vector, before it is expanded", low=2, high=128),
        KnobSpec("width", 128, "values of a token in the layers", low=8, high=512),
        KnobSpec("depth", 4, "number of layers", low=1, high=8),
        KnobSpec("kernel", 32, "tokens that the convolution sees: its own and those before", (4, 8, 16, 32)),
        KnobSpec("expansion", 1, "channels of the convolution per value of a token", (1, 2, 4)),
        KnobSpec("dropout", 0.1, "share of the attention that is dropped in training", low=0.0, high=0.5),
    )

    def __init__(
        self, vocabulary_size: int = 8192, separator: int | None = None, per_step: bool = False
    ) -> None:
        if type(vocabulary_size) is not int or vocabulary_size < 2:
            raise ConfigError(
                f"model.family.vocabulary_size must be a whole number from 2 on, not {vocabulary_size!r}"
            )
        if separator is not None and (type(separator) is not int or not 0 < separator < vocabulary_size):
            raise ConfigError(
                f"model.family.separator must be a token id in 1..{vocabulary_size - 1}, not {separator!r}"
            )
        self.vocabulary_size, self.separator, self.per_step = vocabulary_size, separator, per_step

    def build(self, values: Knobs, input_shape: Shape, n_outputs: int) -> nn.Module:
        """Returns the network."""
        width = values["width"]
        embedder = _Embedder(self.vocabulary_size, input_shape[0], values["reduced"], width, self.separator)
        layers = [
            _Layer(width, values["kernel"], values["expansion"], values["dropout"])
            for _ in range(values["depth"])
        ]
        return _Network(embedder, layers, nn.Linear(width, n_outputs), self.per_step)

    def broken(self, values: Knobs, input_shape: Shape) -> str | None:
        """Returns why these values build no valid network."""
        if len(input_shape) != 1:
            return f"{self.name} takes token ids (length,), not inputs of shape {input_shape}"
        if values["reduced"] > values["width"]:
            return (
                f"reduced={values['reduced']} is more than width={values['width']}: the vectors are expanded"
            )
        return None

    def check(self, split: Split) -> None:
        """Raises InputError if a token has no vector."""
        check_ids(split, self.vocabulary_size, "model.family.vocabulary_size")


class _Network(nn.Module):
    """Token ids `(n, length)` -> logits."""

    def __init__(self, embedder: nn.Module, layers: list["_Layer"], head: nn.Module, per_step: bool) -> None:
        super().__init__()
        self.embedder, self.layers, self.head = embedder, nn.ModuleList(layers), head
        self.per_step = per_step

    def extra_repr(self) -> str:
        """Returns what is classified."""
        return "per_step" if self.per_step else ""

    def forward(self, ids: Tensor) -> Tensor:
        """Returns `(n, n_outputs)`, or `(n, length, n_outputs)` per step."""
        text = (ids > 0).to(torch.float32)
        x = self.embedder(ids)
        for layer in self.layers:
            x = layer(x, text)
        if self.per_step:
            return self.head(x)  # type: ignore[no-any-return]
        total = (x * text.unsqueeze(2)).sum(1)
        return self.head(total / text.sum(1, keepdim=True).clamp(min=1.0))  # type: ignore[no-any-return]


class _Embedder(nn.Module):
    """Token ids -> the sum of vectors of tokens, positions and segments, `(n, length, width)`."""

    def __init__(
        self, vocabulary_size: int, length: int, reduced: int, width: int, separator: int | None
    ) -> None:
        super().__init__()
        self.separator = separator
        self.token = nn.Embedding(vocabulary_size, reduced)
        self.token_expander = nn.Linear(reduced, width, bias=False)
        self.position = nn.Embedding(length, reduced)
        self.position_expander = nn.Linear(reduced, width, bias=False)
        self.segment = nn.Embedding(_SEGMENTS, width)

    def extra_repr(self) -> str:
        """Returns the separator."""
        return f"separator={self.separator}"

    def forward(self, ids: Tensor) -> Tensor:
        """Returns the vectors."""
        segments = (ids > 0).to(torch.int64)
        if self.separator is not None:
            segments = segments * (1 + ((ids == self.separator).cumsum(1) > 0).to(torch.int64))
        x = self.token_expander(self.token(ids)) + self.position_expander(self.position.weight)
        return x + self.segment(segments)  # type: ignore[no-any-return]


class _Layer(nn.Module):
    """RMSNorm, then attention less a causal convolution, each with a learned factor (section 3.2)."""

    def __init__(self, width: int, kernel: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.query, self.output = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        inner = width * expansion
        self.convolution = nn.Conv1d(width, inner, kernel, groups=width, padding=kernel - 1)
        self.contract = nn.Linear(inner, width)
        self.factors = nn.Parameter(0.1 * torch.randn(4, width))

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """Returns the tokens' new values, `(n, length, width)`; `text` `(n, length)` is 0 at padding."""
        x = self.norm(x)
        first, second = (self.factors[:2].prod(0).sum().exp(), self.factors[2:].prod(0).sum().exp())
        return first * self._attention(x, text) - second * self._convolution(x)

    def _attention(self, x: Tensor, text: Tensor) -> Tensor:
        """Attention whose keys and values are the tokens themselves: softmax(Q x^T / sqrt d) x."""
        scores = self.query(x) @ x.transpose(1, 2) / x.shape[2] ** 0.5
        # padding is taken out after the softmax: a large negative number before would leave 8 bits without resolution
        shares = scores.softmax(-1) * text.unsqueeze(1)
        shares = shares / shares.sum(-1, keepdim=True).clamp(min=1e-6)
        return self.output(self.dropout(shares) @ x)  # type: ignore[no-any-return]

    def _convolution(self, x: Tensor) -> Tensor:
        seen = self.convolution(x.transpose(1, 2))[..., : x.shape[1]]
        return self.contract(functional.silu(seen).transpose(1, 2))  # type: ignore[no-any-return]
