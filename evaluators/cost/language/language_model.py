"""Size of decoder-only language models: parameters, weight bytes and key-value cache bytes at any bit width."""

import math
from dataclasses import dataclass

from evaluators.cost.language.decoder import BitWidth, Decoder, LatentAttention
from evaluators.devices.arguments import whole


@dataclass(frozen=True)
class Parameters:
    """Parameters of a decoder by their role.

    Attributes:
        embedding: Input embedding, which is looked up.
        head: Output layer; 0 where it reuses the embedding.
        attention: Projections of all layers.
        dense: Dense feed-forward networks, shared experts and routers.
        experts: Routed experts of all layers.
        vectors: Normalisations and biases.
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
    matrices, biases = _attention_parameters(model)
    dense = (model.layers - model.expert_layers) * model.ffn_matrices * d * model.ffn_dim
    routed = 0
    if experts is not None:
        dense += model.expert_layers * d * (model.ffn_matrices * experts.shared_dim + experts.count)
        routed = model.expert_layers * experts.count * model.ffn_matrices * d * experts.ffn_dim
    vectors = model.layers * (model.norms_per_layer * d + biases) + d
    head = 0 if model.tied_embedding else table
    return Parameters(table, head, model.layers * matrices, dense, routed, vectors)


def _attention_parameters(model: Decoder) -> tuple[int, int]:
    """Elements of one layer's projections, and of its biases and inner normalisations."""
    if model.latent is not None:
        return _latent_parameters(model, model.latent)
    queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    norms = {"none": 0, "head": 2 * model.head_dim, "width": queries + keys}[model.qk_norm]
    biases = queries + 2 * keys if model.qkv_bias else 0
    return model.d_model * (2 * queries + 2 * keys), norms + biases


def _latent_parameters(model: Decoder, latent: LatentAttention) -> tuple[int, int]:
    d, value_dim = model.d_model, latent.value_dim or model.head_dim
    queries = model.heads * (model.head_dim + latent.rope_dim)
    rank = latent.query_rank
    query_matrices = d * queries if rank is None else d * rank + rank * queries
    down = d * (latent.kv_rank + latent.rope_dim)
    up = latent.kv_rank * model.heads * (model.head_dim + value_dim)
    return query_matrices + down + up + model.heads * value_dim * d, latent.kv_rank + (rank or 0)


def weight_bytes(model: Decoder, width: BitWidth, embedding_width: BitWidth | None = None) -> int:
    """Bytes of all weights, `sum n_i (b_i + group_bits / group_size) / 8`.

    Args:
        model: The decoder.
        width: Of the matrices of the layers. Normalisations and biases keep at least 16 bits.
        embedding_width: Of the embedding and the output layer; None means the same as `width`.
    """
    counts, table = parameters(model), embedding_width or width
    matrices = counts.attention + counts.dense + counts.experts
    bits = matrices * width.bits_per_element + (counts.embedding + counts.head) * table.bits_per_element
    return math.ceil((bits + counts.vectors * max(16.0, width.bits)) / 8)


def cache_elements_per_token(model: Decoder) -> int:
    """Elements that one token adds to the key-value cache: 2 L H_kv d_h, or L (kv_rank + rope_dim) with MLA."""
    if model.latent is not None:
        return model.layers * (model.latent.kv_rank + model.latent.rope_dim)
    return 2 * model.layers * model.kv_heads * model.head_dim


def cache_bytes(model: Decoder, n_tokens: int, batch: int = 1, width: BitWidth | None = None) -> int:
    """Bytes of the key-value cache of `batch` sequences of `n_tokens` tokens.

    Args:
        model: The decoder.
        n_tokens: Tokens a sequence.
        batch: Sequences.
        width: Of a cache entry; None means 16 bits.

    Raises:
        EvaluationError: A negative number of tokens, or a batch below 1.
    """
    n_elements = cache_elements_per_token(model) * whole(n_tokens, "n_tokens") * whole(batch, "batch", 1)
    return math.ceil(n_elements * (width or BitWidth(16)).bits_per_element / 8)
