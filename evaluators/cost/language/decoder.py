"""Shape of a decoder-only language model, and the widths at which it is stored.

Shapes are those of the Llama and Mixtral families: feed-forward networks with a gate, two normalisations a layer and one at the end.
Grouped-query attention (GQA): Ainslie et al. 2023; multi-query attention (MQA): Shazeer 2019.
"""

from dataclasses import dataclass

from evaluators.devices.arguments import number, whole
from spaces.errors import ConfigError


@dataclass(frozen=True)
class BitWidth:
    """Width at which weights or cache entries are stored.

    Attributes:
        bits: Bits an element, with its part of scales; need not be whole (ternary weights take 1.6).
    """

    bits: float

    def __post_init__(self) -> None:
        if number(self.bits, "bits", error=ConfigError) == 0:
            raise ConfigError("bits: must be above 0, got 0")


@dataclass(frozen=True)
class Experts:
    """The mixture-of-experts layers of a decoder.

    Attributes:
        count: Routed experts a layer.
        active: Routed experts that a token uses.
        ffn_dim: Inner dimension of a routed expert.
        shared_dim: Inner dimension of all shared experts of a layer together; 0 means none.
        dense_layers: Layers that have one dense feed-forward network instead.
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
        kv_heads: Key and value heads: as many as `heads` (MHA), fewer (GQA), or one (MQA).
        head_dim: Dimension of a head.
        ffn_dim: Inner dimension of the dense feed-forward network.
        vocabulary: Rows of the embedding.
        tied_embedding: Whether the output layer reuses the embedding.
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
    experts: Experts | None = None

    def __post_init__(self) -> None:
        for key in ("layers", "d_model", "heads", "kv_heads", "head_dim", "ffn_dim", "vocabulary"):
            whole(getattr(self, key), key, 1, ConfigError)
        if self.heads % self.kv_heads:
            raise ConfigError(f"kv_heads: must divide heads={self.heads}, got {self.kv_heads}")
        if self.experts is not None:
            _check_experts(self.experts, self.layers)

    @property
    def expert_layers(self) -> int:
        """Layers with experts."""
        return 0 if self.experts is None else self.layers - self.experts.dense_layers


def _check_experts(experts: Experts, layers: int) -> None:
    for key in ("count", "active", "ffn_dim"):
        whole(getattr(experts, key), f"experts.{key}", 1, ConfigError)
    for key in ("shared_dim", "dense_layers"):
        whole(getattr(experts, key), f"experts.{key}", 0, ConfigError)
    if experts.active > experts.count:
        raise ConfigError(f"experts.active: at most experts.count={experts.count}, got {experts.active}")
    if experts.dense_layers > layers:
        raise ConfigError(f"experts.dense_layers: at most layers={layers}, got {experts.dense_layers}")
