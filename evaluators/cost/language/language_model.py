"""Size of decoder-only language models: parameters, weight bytes and key-value cache bytes at any bit width."""

import math
from dataclasses import dataclass

from evaluators.cost.language.decoder import BitWidth, Decoder
from evaluators.devices.arguments import whole

_FFN_MATRICES = 3  # with a gate


@dataclass(frozen=True)
class Parameters:
    """Parameters of a decoder by their role.

    Attributes:
        embedding: Input embedding, which is looked up.
        head: Output layer; 0 where it reuses the embedding.
        attention: Projections of all layers.
        dense: Dense feed-forward networks, shared experts and routers.
        experts: Routed experts of all layers.
        vectors: Normalisations.
    """

    embedding: int
    head: int
    attention: int
    dense: int
    experts: int
    vectors: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.embedding + self.head + self.attention + self.dense + self.experts + self.vectors


def parameters(model: Decoder) -> Parameters:
    """Counts the parameters of a decoder."""
    d, experts = model.d_model, model.experts
    table = model.vocabulary * d
    attention = model.layers * d * 2 * model.head_dim * (model.heads + model.kv_heads)
    dense = (model.layers - model.expert_layers) * _FFN_MATRICES * d * model.ffn_dim
    routed = 0
    if experts is not None:
        dense += model.expert_layers * d * (_FFN_MATRICES * experts.shared_dim + experts.count)
        routed = model.expert_layers * experts.count * _FFN_MATRICES * d * experts.ffn_dim
    vectors = (2 * model.layers + 1) * d
    head = 0 if model.tied_embedding else table
    return Parameters(table, head, attention, dense, routed, vectors)


def weight_bytes(model: Decoder, width: BitWidth, embedding_width: BitWidth | None = None) -> int:
    """Bytes of all weights, `sum n_i b_i / 8`.

    Args:
        model: The decoder.
        width: Of the matrices of the layers. Normalisations keep at least 16 bits.
        embedding_width: Of the embedding and the output layer; None means the same as `width`.
    """
    counts, table = parameters(model), embedding_width or width
    matrices = counts.attention + counts.dense + counts.experts
    bits = matrices * width.bits + (counts.embedding + counts.head) * table.bits
    return math.ceil((bits + counts.vectors * max(16.0, width.bits)) / 8)


def cache_bytes(model: Decoder, n_tokens: int, batch: int = 1, width: BitWidth | None = None) -> int:
    """Bytes of the key-value cache of `batch` sequences of `n_tokens` tokens: 2 L H_kv d_h elements a token.

    Args:
        model: The decoder.
        n_tokens: Tokens a sequence.
        batch: Sequences.
        width: Of a cache entry; None means 16 bits.

    Raises:
        EvaluationError: A negative number of tokens, or a batch below 1.
    """
    of_token = 2 * model.layers * model.kv_heads * model.head_dim
    n_elements = of_token * whole(n_tokens, "n_tokens") * whole(batch, "batch", 1)
    return math.ceil(n_elements * (width or BitWidth(16)).bits / 8)
