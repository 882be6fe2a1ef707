from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.cost.language.decoder import BitWidth, Decoder, Experts, LatentAttention
from evaluators.cost.language.language_model import (
    cache_bytes,
    cache_elements_per_token,
    parameters,
    weight_bytes,
)
from spaces.errors import ConfigError, EvaluationError

LLAMA_8B = Decoder(32, 4096, 32, 8, 128, 14336, 128256)
STORIES_15M = Decoder(6, 288, 6, 6, 48, 768, 32000, tied_embedding=True)
DEEPSEEK_V2_LITE = Decoder(
    *(27, 2048, 16, 16, 128, 10944, 102400),
    latent=LatentAttention(kv_rank=512, rope_dim=64),
    experts=Experts(count=64, active=6, ffn_dim=1408, shared_dim=2816, dense_layers=1),
)

# Shapes from the published configs; counts from the published checkpoints.
PUBLISHED = {
    "Llama-3.1-8B": (LLAMA_8B, 8_030_261_248),
    "Llama-3.1-70B": (Decoder(80, 8192, 64, 8, 128, 28672, 128256), 70_553_706_496),
    "Qwen2.5-7B": (Decoder(28, 3584, 28, 4, 128, 18944, 152064, qkv_bias=True), 7_615_616_512),
    "Qwen3-8B": (Decoder(36, 4096, 32, 8, 128, 12288, 151936, qk_norm="head"), 8_190_735_360),
    "Qwen3-14B": (Decoder(40, 5120, 40, 8, 128, 17408, 151936, qk_norm="head"), 14_768_307_200),
    "Qwen3-32B": (Decoder(64, 5120, 64, 8, 128, 25600, 151936, qk_norm="head"), 32_762_123_264),
    "Gemma-3-27B": (
        Decoder(
            *(62, 5376, 32, 16, 128, 21504, 262144), tied_embedding=True, norms_per_layer=4, qk_norm="head"
        ),
        27_009_002_240,
    ),
    "Mixtral-8x7B": (
        Decoder(32, 4096, 32, 8, 128, 14336, 32000, experts=Experts(8, 2, 14336)),
        46_702_792_704,
    ),
    "OLMoE-1B-7B": (
        Decoder(16, 2048, 16, 16, 128, 1024, 50304, qk_norm="width", experts=Experts(64, 8, 1024)),
        6_919_161_856,
    ),
    "DeepSeek-V2-Lite": (DEEPSEEK_V2_LITE, 15_706_484_224),
    "stories15M": (STORIES_15M, 15_191_712),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_published_checkpoint(name):
    model, count = PUBLISHED[name]
    assert parameters(model).total == count
    assert weight_bytes(model, BitWidth(16)) == 2 * count


def test_a_checkpoint_file_is_as_large_as_the_formula_says():
    file = Path(__file__).parents[4].parent / "shared/data/language/stories15M.bin"
    if not file.is_file():
        pytest.skip("shared/data/language/stories15M.bin is absent")
    header, positions = 7 * 4, 2 * 256 * (48 // 2) * 4  # llama2.c's legacy export keeps the rotations
    assert weight_bytes(STORIES_15M, BitWidth(32)) == file.stat().st_size - header - positions


def test_a_query_latent_replaces_the_query_projection():
    wide = replace(DEEPSEEK_V2_LITE, latent=LatentAttention(512, 64, query_rank=256))
    per_layer = 2048 * 256 + 256 * 16 * 192 - 2048 * 16 * 192
    assert parameters(wide).attention - parameters(DEEPSEEK_V2_LITE).attention == 27 * per_layer
    assert parameters(wide).vectors - parameters(DEEPSEEK_V2_LITE).vectors == 27 * 256


def test_group_scales_count():
    four = BitWidth(4, group_size=128)
    assert four.bits_per_element == 4.25
    counts = parameters(LLAMA_8B)
    tables = counts.embedding + counts.head
    expected = (counts.attention + counts.dense) * 4.25 / 8 + 2 * (tables + counts.vectors)
    assert weight_bytes(LLAMA_8B, four, BitWidth(16)) == expected
    assert cache_bytes(LLAMA_8B, 1024, 2, BitWidth(4, 64)) == 2 * 32 * 8 * 128 * 1024 * 2 * 4.5 / 8


def test_the_cache_of_every_kind_of_attention():
    kinds = {heads: replace(LLAMA_8B, kv_heads=heads) for heads in (32, 8, 1)}
    assert [m.attention for m in kinds.values()] == ["MHA", "GQA", "MQA"]
    # 2 x 32 layers x 8 heads x 128 x 2 bytes = 128 KiB a token, the figure that is quoted for Llama-3-8B.
    assert cache_bytes(kinds[8], 1) == 131_072
    assert cache_bytes(kinds[1], 777) * 32 == cache_bytes(kinds[32], 777)
    assert DEEPSEEK_V2_LITE.attention == "MLA"
    assert cache_elements_per_token(DEEPSEEK_V2_LITE) == 27 * 576


@given(st.integers(0, 10_000), st.integers(1, 64), st.sampled_from([2, 4, 8, 16]), st.integers(1, 256))
def test_the_cache_is_linear_in_tokens_and_sequences(n_tokens, batch, bits, group_size):
    width = BitWidth(bits, group_size)
    once = cache_bytes(LLAMA_8B, 1, 1, width)
    size = cache_bytes(LLAMA_8B, n_tokens, batch, width)
    assert abs(size - n_tokens * batch * once) <= n_tokens * batch  # only rounding to bytes
    assert size >= cache_bytes(LLAMA_8B, n_tokens, batch, BitWidth(bits))


@pytest.mark.parametrize(
    ("call", "argument", "error"),
    [
        (lambda: replace(LLAMA_8B, layers=0), "layers", ConfigError),
        (lambda: replace(LLAMA_8B, kv_heads=5), "kv_heads", ConfigError),
        (lambda: replace(LLAMA_8B, ffn_matrices=1), "ffn_matrices", ConfigError),
        (lambda: replace(LLAMA_8B, qk_norm="heads"), "qk_norm.*Did you mean 'head'", ConfigError),
        (lambda: replace(LLAMA_8B, experts=Experts(4, 5, 8)), "experts.active", ConfigError),
        (lambda: replace(LLAMA_8B, experts=Experts(4, 2, 8, 0, 33)), "experts.dense_layers", ConfigError),
        (lambda: replace(LLAMA_8B, experts=Experts(4, 2, 0)), "experts.ffn_dim", ConfigError),
        (lambda: replace(LLAMA_8B, latent=LatentAttention(0, 1)), "latent.kv_rank", ConfigError),
        (lambda: replace(LLAMA_8B, latent=LatentAttention(1, 1, 0)), "latent.query_rank", ConfigError),
        (lambda: BitWidth(0), "bits", ConfigError),
        (lambda: BitWidth(4, 0), "group_size", ConfigError),
        (lambda: BitWidth(4, 1, -1), "group_bits", ConfigError),
        (lambda: cache_bytes(LLAMA_8B, -1), "n_tokens", EvaluationError),
        (lambda: cache_bytes(LLAMA_8B, 1, 0), "batch", EvaluationError),
    ],
)
def test_errors_name_the_argument(call, argument, error):
    with pytest.raises(error, match=argument):
        call()
