from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.cost.language.decoder import BitWidth, Decoder, Experts
from evaluators.cost.language.language_model import (
    cache_bytes,
    parameters,
    weight_bytes,
)
from spaces.errors import ConfigError, EvaluationError

LLAMA_8B = Decoder(32, 4096, 32, 8, 128, 14336, 128256)
STORIES_15M = Decoder(6, 288, 6, 6, 48, 768, 32000, tied_embedding=True)

# Shapes from the published configs; counts from the published checkpoints.
PUBLISHED = {
    "Llama-3.1-8B": (LLAMA_8B, 8_030_261_248),
    "Llama-3.1-70B": (Decoder(80, 8192, 64, 8, 128, 28672, 128256), 70_553_706_496),
    "Mixtral-8x7B": (
        Decoder(32, 4096, 32, 8, 128, 14336, 32000, experts=Experts(8, 2, 14336)),
        46_702_792_704,
    ),
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


def test_narrow_layers_leave_embedding_and_vectors():
    counts = parameters(LLAMA_8B)
    tables = counts.embedding + counts.head
    expected = (counts.attention + counts.dense) * 4.25 / 8 + 2 * (tables + counts.vectors)
    assert weight_bytes(LLAMA_8B, BitWidth(4.25), BitWidth(16)) == expected
    assert cache_bytes(LLAMA_8B, 1024, 2, BitWidth(4.5)) == 2 * 32 * 8 * 128 * 1024 * 2 * 4.5 / 8


def test_the_cache_of_every_kind_of_attention():
    kinds = {heads: replace(LLAMA_8B, kv_heads=heads) for heads in (32, 8, 1)}
    # 2 x 32 layers x 8 heads x 128 x 2 bytes = 128 KiB a token, the figure that is quoted for Llama-3-8B.
    assert cache_bytes(kinds[8], 1) == 131_072
    assert cache_bytes(kinds[1], 777) * 32 == cache_bytes(kinds[32], 777)


@given(st.integers(0, 10_000), st.integers(1, 64), st.floats(1.5, 32))
def test_the_cache_is_linear_in_tokens_and_sequences(n_tokens, batch, bits):
    width = BitWidth(bits)
    once = cache_bytes(LLAMA_8B, 1, 1, width)
    size = cache_bytes(LLAMA_8B, n_tokens, batch, width)
    assert abs(size - n_tokens * batch * once) <= n_tokens * batch  # only rounding to bytes


@pytest.mark.parametrize(
    ("call", "argument", "error"),
    [
        (lambda: replace(LLAMA_8B, layers=0), "layers", ConfigError),
        (lambda: replace(LLAMA_8B, kv_heads=5), "kv_heads", ConfigError),
        (lambda: replace(LLAMA_8B, experts=Experts(4, 5, 8)), "experts.active", ConfigError),
        (lambda: replace(LLAMA_8B, experts=Experts(4, 2, 8, 0, 33)), "experts.dense_layers", ConfigError),
        (lambda: replace(LLAMA_8B, experts=Experts(4, 2, 0)), "experts.ffn_dim", ConfigError),
        (lambda: BitWidth(0), "bits", ConfigError),
        (lambda: cache_bytes(LLAMA_8B, -1), "n_tokens", EvaluationError),
        (lambda: cache_bytes(LLAMA_8B, 1, 0), "batch", EvaluationError),
    ],
)
def test_errors_name_the_argument(call, argument, error):
    with pytest.raises(error, match=argument):
        call()
