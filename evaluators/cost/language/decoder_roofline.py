"""How fast a language model reads a prompt and writes tokens: the slower of arithmetic and memory traffic.

Williams, Waterman, Patterson 2009, "Roofline", CACM 52(4). Reading a prompt (prefill) uses every weight for many
tokens, so arithmetic decides; writing (decode) reads all weights and the cache for one token a sequence, so the
memory's bandwidth does. Traffic of activations is left out: it is small beside weights and cache.
"""

from dataclasses import dataclass

from evaluators.cost.language.decoder import BitWidth, Decoder
from evaluators.cost.language.language_model import cache_bytes, parameters
from evaluators.devices.arguments import number, positive, whole

_HALF = BitWidth(16)


@dataclass(frozen=True)
class Hardware:
    """What the rooflines need to know of a machine.

    Attributes:
        macs_per_s: Multiply-accumulates per second that matrix products reach at the width they run in.
        bandwidth_bytes_per_s: Bytes per second that the memory reaches.
        overhead_s: Time that every pass costs besides, e.g. for launching kernels.
    """

    macs_per_s: float
    bandwidth_bytes_per_s: float
    overhead_s: float = 0.0

    def __post_init__(self) -> None:
        positive(self.macs_per_s, "macs_per_s")
        positive(self.bandwidth_bytes_per_s, "bandwidth_bytes_per_s")
        number(self.overhead_s, "overhead_s")


@dataclass(frozen=True)
class Pass:
    """One pass of a decoder.

    Attributes:
        macs: Multiply-accumulates.
        weight_bytes: Weights that are read.
        cache_bytes: Cache entries that are read and written.
        compute_s: Time of the arithmetic.
        memory_s: Time of the traffic.
        time_s: The longer of the two, and the overhead.
        tokens_per_s: Tokens that the pass reads (prefill) or writes (decode), over its time.
    """

    macs: float
    weight_bytes: float
    cache_bytes: float
    compute_s: float
    memory_s: float
    time_s: float
    tokens_per_s: float


@dataclass(frozen=True)
class Widths:
    """Widths at which a decoder is stored; the defaults are those of bf16.

    Attributes:
        weights: Of the matrices of the layers.
        head: Of the output layer.
        cache: Of the key-value cache.
    """

    weights: BitWidth = _HALF
    head: BitWidth = _HALF
    cache: BitWidth = _HALF


def prefill(
    model: Decoder, n_tokens: int, hardware: Hardware, batch: int = 1, widths: Widths | None = None
) -> Pass:
    """One pass over the prompts of `batch` sequences of `n_tokens` tokens; only the last one gets an output.

    Raises:
        EvaluationError: `n_tokens` or `batch` is not a whole number from 1 up.
    """
    widths, all_tokens = widths or Widths(), whole(n_tokens, "n_tokens", 1) * whole(batch, "batch", 1)
    pairs = batch * n_tokens * (n_tokens + 1) // 2
    per_pair = model.layers * model.heads * 2 * model.head_dim  # scores and weighted values
    macs = all_tokens * layer_macs_per_token(model) + pairs * per_pair + batch * _head_size(model)
    written = cache_bytes(model, n_tokens, batch, widths.cache)
    return _pass(macs, streamed_weight_bytes(model, all_tokens, widths), written, all_tokens, hardware)


def decode(
    model: Decoder, context: int, hardware: Hardware, batch: int = 1, widths: Widths | None = None
) -> Pass:
    """One pass that writes a token for each of `batch` sequences, after `context` tokens.

    Raises:
        EvaluationError: A negative `context`, or `batch` is not a whole number from 1 up.
    """
    widths, n_read = widths or Widths(), whole(context, "context") + 1
    per_pair = model.layers * model.heads * 2 * model.head_dim
    macs = whole(batch, "batch", 1) * (layer_macs_per_token(model) + n_read * per_pair + _head_size(model))
    traffic = cache_bytes(model, n_read, batch, widths.cache)
    return _pass(macs, streamed_weight_bytes(model, batch, widths), traffic, batch, hardware)


def layer_macs_per_token(model: Decoder) -> int:
    """Multiply-accumulates of all layers for one token, without those that grow with the context and the output."""
    counts = parameters(model)
    share = model.experts.active / model.experts.count if model.experts is not None else 0
    return counts.attention + counts.dense + round(counts.experts * share)


def streamed_weight_bytes(model: Decoder, n_tokens: int, widths: Widths | None = None) -> float:
    """Weights that a pass over `n_tokens` tokens reads: all but the embedding, whose few rows do not count.

    Of the experts, those that any of the tokens uses: `count (1 - (1 - active / count)^n)` on average, if every token
    chooses independently and evenly; real routing reuses experts, so this is an upper estimate.

    Raises:
        EvaluationError: `n_tokens` is not a whole number from 1 up.
    """
    counts, widths = parameters(model), widths or Widths()
    used = 0.0
    if model.experts is not None:
        used = 1 - (1 - model.experts.active / model.experts.count) ** whole(n_tokens, "n_tokens", 1)
    matrices = counts.attention + counts.dense + used * counts.experts
    bits = matrices * widths.weights.bits + _head_size(model) * widths.head.bits
    return (bits + counts.vectors * max(16.0, widths.weights.bits)) / 8


def _head_size(model: Decoder) -> int:
    return model.vocabulary * model.d_model


def _pass(macs: float, weights: float, cache: float, n_tokens: int, hardware: Hardware) -> Pass:
    compute_s = macs / hardware.macs_per_s
    memory_s = (weights + cache) / hardware.bandwidth_bytes_per_s
    time_s = max(compute_s, memory_s) + hardware.overhead_s
    return Pass(macs, weights, cache, compute_s, memory_s, time_s, n_tokens / time_s)
