"""The key-value cache of a window, and that the memory in all counts it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from evaluators.cost.cost import CostEvaluator
from evaluators.cost.language.window_cache import window_cache
from evaluators.devices.device import Device
from evaluators.testing import tiny_context, tiny_model
from spaces.models.export import ExportStage
from spaces.models.zoo.language.llama import Llama, LlamaSizes
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact

SIZES = LlamaSizes(dim=32, ffn_dim=48, n_layers=2, n_heads=4, n_kv_heads=2, vocabulary_size=60, max_length=16)
LENGTH = 12
ENTRIES = 2 * SIZES.n_layers * SIZES.n_kv_heads * LENGTH  # keys and values of one head and token


@pytest.fixture(scope="module")
def exported():
    torch.manual_seed(0)
    artifact = torch_artifact(Llama(SIZES).eval(), InputSpec((LENGTH,), dtype="int64"))
    return ExportStage().apply(artifact, {}, StageContext(None, Cache()))


@pytest.fixture(scope="module")
def context():
    ids = np.random.default_rng(0).integers(0, 60, (4, LENGTH))
    return StageContext(ArraySplit(ids, ids), Cache())


@pytest.mark.parametrize(
    ("values", "bits", "of_head"),
    [
        (None, 32, 4 * 8),
        ({}, 32, 4 * 8),
        ({"activation_matmuls": True}, 32, 4 * 8),
        ({"integer_functions": True}, 32, 4 * 8),
        ({"precision": "float16"}, 16, 2 * 8),
        ({"format": "qoperator", "activation_matmuls": True}, 8, 8),
        ({"kv_bits": 16}, 16, 2 * 8),
        ({"kv_bits": 4}, 4, 4 + 4),  # scale and zero in float16
        ({"kv_bits": 4, "activation_matmuls": True}, 4, 4 + 4),
    ],
)
def test_heads_that_share_keys_and_values_cache_them_once(exported, context, values, bits, of_head):
    made = exported
    if values is not None:
        made = QuantizeStage().apply(exported, {"calibration_images": 4, **values}, context)
    found = window_cache(made)
    assert found is not None
    assert (found.n_tokens, found.bits, found.n_bytes) == (LENGTH, bits, ENTRIES * of_head)


def test_the_memory_in_all_has_the_cache(exported, context):
    board = Device("board", runtime="r", macs_per_s={"float32": {"default": 1e6}})
    given = replace(tiny_context(), devices={"board": board})
    narrow = QuantizeStage().apply(exported, {"calibration_images": 4, "kv_bits": 4}, context)
    for made, n_bytes in ((exported, ENTRIES * 32), (narrow, ENTRIES * 8)):
        evaluation = CostEvaluator().evaluate(made, given)
        costs = {m.name: m.value for m in evaluation.measurements}
        assert costs["total_bytes"] == costs["weight_bytes"] + costs["peak_activation_bytes"] + n_bytes
        assert evaluation.details["cost"]["kv_cache"]["n_tokens"] == LENGTH
        because = evaluation.details["because"]["cost.board.total_bytes"]
        assert f"{n_bytes} bytes of keys and values" in because
        assert f"the window's {LENGTH} tokens" in because


def test_without_causal_attention_there_is_no_cache():
    assert window_cache(tiny_model()) is None
    assert "kv_cache" not in CostEvaluator().evaluate(tiny_model(), tiny_context()).details["cost"]
