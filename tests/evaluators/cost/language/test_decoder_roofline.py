import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.cost.language.decoder import BitWidth, Decoder, Experts
from evaluators.cost.language.decoder_roofline import (
    Hardware,
    Widths,
    decode,
    layer_macs_per_token,
    prefill,
    streamed_weight_bytes,
)
from evaluators.cost.language.language_model import cache_bytes, parameters
from spaces.errors import EvaluationError

LLAMA_8B = Decoder(32, 4096, 32, 8, 128, 14336, 128256)
MIXTRAL = Decoder(32, 4096, 32, 8, 128, 14336, 32000, experts=Experts(8, 2, 14336))
TINY = Decoder(layers=2, d_model=8, heads=2, kv_heads=1, head_dim=4, ffn_dim=16, vocabulary=10)
UNIT = Hardware(macs_per_s=1.0, bandwidth_bytes_per_s=1.0)

H100, B200 = 3.35e12, 8e12
# ML.ENERGY benchmark, bf16, one GPU, 8 sequences: bandwidth, nominal billions of parameters, milliseconds a token, and
# the milliseconds that reading 2 bytes a parameter takes.
MEASURED = {
    "Llama-3.1-8B": (LLAMA_8B, H100, 8, 7.32, 4.78),
    "Qwen3-8B": (Decoder(36, 4096, 32, 8, 128, 12288, 151936), H100, 8, 8.20, 4.78),
    "Qwen3-14B": (Decoder(40, 5120, 40, 8, 128, 17408, 151936), H100, 14, 12.54, 8.36),
    "gemma-3-27b": (
        Decoder(62, 5376, 32, 16, 128, 21504, 262144, tied_embedding=True),
        H100,
        27,
        23.43,
        16.12,
    ),
    "Qwen3-32B": (Decoder(64, 5120, 64, 8, 128, 25600, 151936), H100, 32, 25.21, 19.10),
    "Llama-3.1-8B on B200": (LLAMA_8B, B200, 8, 4.57, 2.00),
    "Qwen3-32B on B200": (Decoder(64, 5120, 64, 8, 128, 25600, 151936), B200, 32, 14.13, 8.00),
}


@pytest.mark.parametrize("name", MEASURED)
def test_the_weight_streaming_bound_lies_below_the_measurement(name):
    model, bandwidth, billions, measured_ms, bound_ms = MEASURED[name]
    assert 1e3 * 2 * billions * 1e9 / bandwidth == pytest.approx(bound_ms, abs=0.01)
    # The bound takes nominal counts; what is streamed lacks the embedding, which matters for the small models.
    streamed_ms = 1e3 * streamed_weight_bytes(model, 1) / bandwidth
    assert streamed_ms == pytest.approx(bound_ms, rel=0.07)
    assert streamed_ms < measured_ms < 2.5 * streamed_ms


@pytest.mark.parametrize("name", [name for name in MEASURED if "B200" not in name])
def test_decode_reproduces_measured_latencies(name):
    # 84 % of the bandwidth and 2.5 ms of overhead are a line through two of these rows; half the peak arithmetic.
    model, bandwidth, _, measured_ms, _ = MEASURED[name]
    hardware = Hardware(0.5 * 495e12, 0.84 * bandwidth, 2.5e-3)
    written = decode(model, context=500, hardware=hardware, batch=8)
    assert 1e3 * written.time_s == pytest.approx(measured_ms, rel=0.1)
    assert written.memory_s > written.compute_s
    assert written.tokens_per_s == pytest.approx(8 / written.time_s)


def test_a_decoder_by_hand():
    # A layer: 8x8 queries, 2 x 8x4 keys and values, 8x8 output, 3 x 8x16 feed-forward.
    assert layer_macs_per_token(TINY) == 2 * (64 + 64 + 64 + 384)
    read = prefill(TINY, 3, UNIT, batch=2)
    pairs = 2 * (1 + 2 + 3)
    assert read.macs == 6 * 1152 + pairs * 2 * 2 * (2 * 4) + 2 * 80
    assert read.cache_bytes == cache_bytes(TINY, 3, 2)
    written = decode(TINY, 3, UNIT, batch=2)
    assert written.macs == 2 * (1152 + 4 * 2 * 2 * (2 * 4) + 80)
    assert written.weight_bytes == 2 * (parameters(TINY).total - parameters(TINY).embedding)
    assert written.cache_bytes == cache_bytes(TINY, 4, 2)
    assert written.time_s == max(written.macs, written.weight_bytes + written.cache_bytes)


def test_prompts_are_bound_by_arithmetic_and_tokens_by_memory():
    gpu = Hardware(500e12, 3e12)
    read, written = prefill(LLAMA_8B, 2048, gpu), decode(LLAMA_8B, 2048, gpu)
    assert read.compute_s > read.memory_s
    assert written.memory_s > written.compute_s
    assert read.tokens_per_s > 20 * written.tokens_per_s


def test_narrow_weights_and_caches_save_traffic():
    four = Widths(BitWidth(4.25), BitWidth(8), BitWidth(4.5))
    wide, narrow = decode(LLAMA_8B, 4096, UNIT, 4), decode(LLAMA_8B, 4096, UNIT, 4, four)
    assert narrow.cache_bytes == pytest.approx(wide.cache_bytes * 4.5 / 16)
    assert wide.weight_bytes / narrow.weight_bytes == pytest.approx(3.6, abs=0.1)
    assert narrow.macs == wide.macs


def test_more_sequences_read_more_experts_but_never_all_twice():
    counts = parameters(MIXTRAL)
    others = 2 * (counts.total - counts.embedding - counts.experts)
    assert streamed_weight_bytes(MIXTRAL, 1) == pytest.approx(others + 2 * counts.experts * 2 / 8)
    assert streamed_weight_bytes(MIXTRAL, 2) == pytest.approx(others + 2 * counts.experts * (1 - 0.75**2))
    assert streamed_weight_bytes(MIXTRAL, 10**4) == pytest.approx(others + 2 * counts.experts)
    # "12.9B active parameters" in the release of the model
    assert layer_macs_per_token(MIXTRAL) + 2 * 32000 * 4096 == pytest.approx(12.9e9, rel=0.005)


@given(st.integers(0, 5000), st.integers(1, 64))
def test_longer_contexts_and_larger_batches_never_take_less_time(context, batch):
    gpu = Hardware(500e12, 3e12, 1e-3)
    base = decode(LLAMA_8B, context, gpu, batch)
    assert decode(LLAMA_8B, context + 1, gpu, batch).time_s > base.time_s
    larger = decode(LLAMA_8B, context, gpu, batch + 1)
    assert larger.time_s > base.time_s
    assert larger.tokens_per_s > base.tokens_per_s


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: Hardware(0, 1), "macs_per_s"),
        (lambda: Hardware(1, -1), "bandwidth_bytes_per_s"),
        (lambda: Hardware(1, 1, -1), "overhead_s"),
        (lambda: prefill(TINY, 0, UNIT), "n_tokens"),
        (lambda: prefill(TINY, 1, UNIT, batch=0), "batch"),
        (lambda: decode(TINY, -1, UNIT), "context"),
        (lambda: decode(TINY, 1, UNIT, batch=1.5), "batch"),
    ],
)
def test_errors_name_the_argument(call, argument):
    with pytest.raises(EvaluationError, match=argument):
        call()
