"""Shape of a decoder-only language model, and the widths at which it is stored.

Shapes follow the published configs of the Llama, Qwen, Gemma, Mixtral, OLMoE and DeepSeek families. Multi-head latent
attention (MLA): DeepSeek-AI 2024, "DeepSeek-V2", section 2.1; grouped-query attention (GQA): Ainslie et al. 2023;
multi-query attention (MQA): Shazeer 2019.
"""

from dataclasses import dataclass
from typing import Literal

from evaluators.devices.arguments import number, whole
from spaces.errors import ConfigError, unknown_name

Attention = Literal["MHA", "GQA", "MQA", "MLA"]
_QK_NORMS = ("none", "head", "width")


@dataclass(frozen=True)
class BitWidth:
    """Width at which weights or cache entries are stored.

    Attributes:
        bits: Bits an element; need not be whole (ternary weights take 1.58).
        group_size: Elements that share a scale and a zero point; None means that scales are too few to count.
        group_bits: Bits of one scale and zero point together.
    """

    bits: float
    group_size: int | None = None
    group_bits: float = 32.0

    def __post_init__(self) -> None:
        if number(self.bits, "bits", error=ConfigError) == 0:
            raise ConfigError("bits: must be above 0, got 0")
        if self.group_size is not None:
            whole(self.group_size, "group_size", 1, ConfigError)
        number(self.group_bits, "group_bits", error=ConfigError)

    @property
    def bits_per_element(self) -> float:
        """Bits an element takes with its part of the group's scale: `bits + group_bits / group_size`."""
        return self.bits + (self.group_bits / self.group_size if self.group_size else 0.0)


@dataclass(frozen=True)
class LatentAttention:
    """Dimensions of multi-head latent attention; the decoder's `head_dim` is the part of a key without rotation.

    Attributes:
        kv_rank: Dimension of the latent that stands for all keys and values.
        rope_dim: Dimension of the rotated key part, which all heads share.
        query_rank: Dimension of the queries' latent; None projects queries directly.
        value_dim: Dimension of a head's value; None means `head_dim`.
    """

    kv_rank: int
    rope_dim: int
    query_rank: int | None = None
    value_dim: int | None = None


@dataclass(frozen=True)
class Experts:
    """The mixture-of-experts layers of a decoder.

    Attributes:
        count: Routed experts a layer.
        active: Routed experts that a token uses.
        ffn_dim: Inner dimension of a routed expert.
        shared_dim: Inner dimension of all shared experts of a layer together; 0 means none.
        dense_layers: Leading layers that have one dense feed-forward network instead.
    """

    count: int
    active: int
    ffn_dim: int
    shared_dim: int = 0
    dense_layers: int = 0


@dataclass(frozen=True)
class Decoder:
    """A decoder-only transformer.

    Attributes:
        layers: Transformer layers.
        d_model: Width of the residual stream.
        heads: Query heads.
        kv_heads: Key and value heads: as many as `heads` (MHA), fewer (GQA), or one (MQA); not used with `latent`.
        head_dim: Dimension of a head.
        ffn_dim: Inner dimension of the dense feed-forward network.
        vocabulary: Rows of the embedding.
        tied_embedding: Whether the output layer reuses the embedding.
        ffn_matrices: Matrices of a feed-forward network: 3 with a gate, 2 without.
        norms_per_layer: Normalisations of width `d_model` a layer, one vector each; one more ends the network.
        qkv_bias: Whether the query, key and value projections have biases.
        qk_norm: Normalisation of queries and keys: `none`, over each `head`, or over the whole `width`.
        latent: Multi-head latent attention.
        experts: Mixture of experts.
    """

    layers: int
    d_model: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_dim: int
    vocabulary: int
    tied_embedding: bool = False
    ffn_matrices: int = 3
    norms_per_layer: int = 2
    qkv_bias: bool = False
    qk_norm: Literal["none", "head", "width"] = "none"
    latent: LatentAttention | None = None
    experts: Experts | None = None

    def __post_init__(self) -> None:
        for key in ("layers", "d_model", "heads", "kv_heads", "head_dim", "ffn_dim", "vocabulary"):
            whole(getattr(self, key), key, 1, ConfigError)
        whole(self.norms_per_layer, "norms_per_layer", 0, ConfigError)
        if self.heads % self.kv_heads:
            raise ConfigError(f"kv_heads: must divide heads={self.heads}, got {self.kv_heads}")
        if self.ffn_matrices not in (2, 3):
            raise ConfigError(f"ffn_matrices: must be 2 or 3, got {self.ffn_matrices!r}")
        if self.qk_norm not in _QK_NORMS:
            raise ConfigError(unknown_name("normalisation", self.qk_norm, _QK_NORMS, "qk_norm"))
        if self.latent is not None:
            _check_latent(self.latent)
        if self.experts is not None:
            _check_experts(self.experts, self.layers)

    @property
    def attention(self) -> Attention:
        """Kind of attention."""
        if self.latent is not None:
            return "MLA"
        if self.kv_heads == self.heads:
            return "MHA"
        return "MQA" if self.kv_heads == 1 else "GQA"

    @property
    def expert_layers(self) -> int:
        """Layers with experts."""
        return 0 if self.experts is None else self.layers - self.experts.dense_layers


def _check_latent(latent: LatentAttention) -> None:
    whole(latent.kv_rank, "latent.kv_rank", 1, ConfigError)
    whole(latent.rope_dim, "latent.rope_dim", 0, ConfigError)
    for key in ("query_rank", "value_dim"):
        if getattr(latent, key) is not None:
            whole(getattr(latent, key), f"latent.{key}", 1, ConfigError)


def _check_experts(experts: Experts, layers: int) -> None:
    for key in ("count", "active", "ffn_dim"):
        whole(getattr(experts, key), f"experts.{key}", 1, ConfigError)
    for key in ("shared_dim", "dense_layers"):
        whole(getattr(experts, key), f"experts.{key}", 0, ConfigError)
    if experts.active > experts.count:
        raise ConfigError(f"experts.active: at most experts.count={experts.count}, got {experts.active}")
    if experts.dense_layers > layers:
        raise ConfigError(f"experts.dense_layers: at most layers={layers}, got {experts.dense_layers}")
