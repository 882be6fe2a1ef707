"""Keys and values in few bits: what is stored, where a network rounds them, and that nothing else has a cache."""

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper

from spaces.errors import StageError
from spaces.models.export import ExportStage
from spaces.models.onnx.ort_session import ort_session
from spaces.models.zoo.language.decoder import decoder_of, export_decoder
from spaces.models.zoo.language.llama import Llama, LlamaSizes
from spaces.quantization.formats.stored import simulated_layers
from spaces.quantization.quantize import QuantizeStage
from spaces.quantization.transformers.kv_cache import (
    CachedOperand,
    cache_bits,
    cached_operands,
    entry_bytes,
    with_cache_bits,
)
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact

SIZES = LlamaSizes(dim=32, ffn_dim=48, n_layers=2, n_heads=4, n_kv_heads=2, vocabulary_size=60, max_length=16)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    module = Llama(SIZES)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.eval()


@pytest.fixture(scope="module")
def exported(network):
    artifact = torch_artifact(network, InputSpec((12,), dtype="int64"))
    return ExportStage().apply(artifact, {}, StageContext(None, Cache()))


@pytest.fixture(scope="module")
def decoder(network):
    return export_decoder(decoder_of(network))


@pytest.fixture(scope="module")
def texts():
    ids = np.random.default_rng(0).integers(0, 60, (8, 12))
    return ArraySplit(ids, ids)


def stored(x, bits):
    """What numpy stores of the last axis."""
    if bits == 16:
        return x.astype(np.float16).astype(np.float32)
    low, high, n = x.min(-1, keepdims=True), x.max(-1, keepdims=True), np.float32(2**bits - 1)
    scale = np.maximum((high - low) / n, np.float32(2.0**-14)).astype(np.float16).astype(np.float32)
    zero = low.astype(np.float16).astype(np.float32)
    return np.clip(np.round((x - zero) / scale), 0, n) * scale + zero


def product(bits, opset=21, transposed=False):
    """Returns a function that multiplies by values as a cache of this width stores them."""
    shapes = {"a": (None,) * 2, "b": (None,) * 2, "y": (None,) * 2}
    a, b, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in shapes.items())
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["y"], "product")], "g", [a, b], [y])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    made = with_cache_bits(proto, [CachedOperand("product", -2 if transposed else -1, "b")], bits)
    onnx.checker.check_model(made, full_check=True)
    session = ort_session(made)
    return lambda a, b: session.run(None, {"a": a, "b": b})[0]


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize("bits", [2, 4, 8, 16, 32])
def test_a_product_reads_what_numpy_stores_bit_by_bit(bits, opset):
    b = np.random.default_rng(bits).standard_normal((9, 16)).astype(np.float32)
    b[3] = 0.25  # a token whose values are equal
    identity = np.eye(9, dtype=np.float32)
    wanted = b if bits == 32 else stored(b, bits)
    np.testing.assert_array_equal(product(bits, opset)(identity, b), wanted)
    of_keys = product(bits, opset, transposed=True)(np.eye(16, dtype=np.float32), np.ascontiguousarray(b.T))
    np.testing.assert_array_equal(of_keys, wanted.T)


@given(
    x=arrays(np.float32, st.integers(2, 40), elements=st.floats(-1000, 1000, width=32)),
    bits=st.sampled_from([2, 4, 8]),
)
def test_an_error_is_at_most_half_a_step_and_the_rounding_of_scale_and_zero(x, bits):
    step = max(float(x.max() - x.min()) / (2**bits - 1), 2.0**-14)
    size = float(np.abs(x).max())
    error = np.abs(stored(x, bits) - x).max()
    assert error <= step / 2 + 2.0**-10 * (size + step * 2**bits) + 1e-6


@pytest.mark.parametrize(("bits", "n_bytes"), [(2, 16), (4, 28), (8, 52), (16, 96), (32, 192)])
def test_bytes_of_a_token_of_a_head(bits, n_bytes):
    assert entry_bytes(bits, 48) == n_bytes


def test_both_operands_of_each_layer_are_found(exported, decoder):
    found = cached_operands(exported.proto())
    assert [operand.axis for operand in found] == [-2, -1] * SIZES.n_layers
    assert len(cached_operands(decoder, causal=False)) == 2 * SIZES.n_layers
    assert cached_operands(decoder) == ()  # its mask is computed


def log_shares(artifact, texts):
    logits = ort_session(artifact.proto()).run(None, {artifact.input.name: texts.raw})[0]
    return torch.log_softmax(torch.tensor(logits, dtype=torch.float64), -1).numpy()


def test_the_fewer_bits_the_larger_the_error(exported, texts):
    stage, context = QuantizeStage(), StageContext(texts, Cache())
    made = {
        b: stage.apply(exported, {"precision": "weights_only", "kv_bits": b}, context)
        for b in (2, 4, 8, 16, 32)
    }
    assert made[32].digest == stage.apply(exported, {"precision": "weights_only"}, context).digest
    shares = {bits: log_shares(artifact, texts) for bits, artifact in made.items()}
    errors = {bits: float(np.sqrt(np.mean((s - shares[32]) ** 2))) for bits, s in shares.items()}
    assert errors[2] > 2 * errors[4] > 4 * errors[8]
    assert errors[8] > errors[16] > 0
    assert errors[16] < 0.01
    assert {bits: cache_bits(a.proto()) for bits, a in made.items()} == {b: b for b in made}


@pytest.mark.parametrize("bits", [2, 4, 16])
def test_a_decoder_with_a_cache_computes_what_the_network_over_windows_does(exported, decoder, texts, bits):
    window = with_cache_bits(exported.proto(), cached_operands(exported.proto()), bits)
    session = ort_session(with_cache_bits(decoder, cached_operands(decoder, causal=False), bits))
    ids = texts.raw[:1]
    wanted = ort_session(window).run(None, {exported.input.name: ids})[0]
    past = np.zeros((2, 2, 0, 8), np.float32)
    keys, values, found = past, past, []
    for position in range(12):
        feeds = {"ids": ids[:, position : position + 1], "positions": np.array([position])}
        logits, keys, values = session.run(None, {**feeds, "past_keys": keys, "past_values": values})
        found.append(logits[0, 0])
    np.testing.assert_allclose(np.stack(found), wanted[0], rtol=1e-3, atol=1e-3)


def test_its_file_says_that_it_simulates(exported, texts):
    context = StageContext(texts, Cache())
    made = QuantizeStage().apply(exported, {"kv_bits": 4}, context)
    assert set(simulated_layers(made.onnx_bytes).values()) == {"kv_bits=4"}
    assert any("kv_bits=4" in note for note in made.notes["quantize"]["notes"])
    remarks = QuantizeStage().remarks(exported, {"kv_bits": (4, 16, 32)}, context)
    assert any(r.startswith("Simulated: kv_bits=4, 16: ") for r in remarks)


def test_a_network_without_causal_attention_has_no_cache(build):
    b = build((6, 8))
    scores = b.op("MatMul", ["input", b.op("Transpose", ["input"], "kt", perm=[0, 2, 1])], "scores")
    padding = np.zeros((6, 6), np.float32)
    padding[:, 4:] = -np.inf  # hides the last keys from all queries
    masked = b.op("Add", [scores, b.constant("padding", padding)], "masked")
    y = b.op("MatMul", [b.op("Softmax", [masked], "soft"), "input"], "y")
    artifact = b.artifact(b.linear(b.op("Flatten", [y], "flat"), "last", 48, 3))
    assert cached_operands(artifact.proto()) == ()
    assert len(cached_operands(artifact.proto(), causal=False)) == 2
    stage, context = QuantizeStage(), StageContext(None, Cache())
    assert stage.canonical(artifact, {"kv_bits": 4}, context)["kv_bits"] == 32
    reason = stage.empty_knobs(artifact, {"kv_bits": (4, 32)}, context)["kv_bits"]
    assert "no attention with a constant causal mask" in reason
    assert not any("Simulated" in r for r in stage.remarks(artifact, {"kv_bits": (4, 32)}, context))


def test_operators_of_eight_bits_refuse_it(exported, texts):
    values = {"kv_bits": 4, "activation_matmuls": True, "format": "qoperator"}
    with pytest.raises(StageError, match=r"kv_bits must be 32, not 4; set format=qdq"):
        QuantizeStage().canonical(exported, values, StageContext(texts, Cache()))
