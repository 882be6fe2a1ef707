import struct
from dataclasses import replace

import numpy as np
import onnx
import pytest

from evaluators.base import EvaluationContext, Reference
from evaluators.cost.decoding import DecodingEvaluator
from evaluators.cost.language.candidate_decoder import decoder_template, with_layers_of
from evaluators.cost.language.generation import TextDecoder
from evaluators.cost.speculative_decoding import SpeculativeEvaluator
from evaluators.devices.device import Device
from evaluators.metric import MeanMetric
from evaluators.runtime import open_session
from evaluators.testing import EvaluatorConformance, tiny_model
from spaces.errors import ConfigError, EvaluationError
from spaces.models.base import LoadContext
from spaces.models.export import ExportStage
from spaces.models.zoo.language.llama import LlamaModel
from spaces.models.zoo.language.moe import MoeModel
from spaces.quantization.formats.stored import stored_weights
from spaces.quantization.quantize import QuantizeStage
from spaces.quantization.transformers.kv_cache import cache_bits
from spaces.stages.array_split import ArraySplit
from spaces.stages.cache import Cache
from spaces.stages.output_spec import OutputSpec
from spaces.stages.stage import StageContext

DIM, FFN, LAYERS, HEADS, VOCABULARY, LENGTH = 32, 48, 2, 2, 50, 40


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("llama") / "small.bin"
    size = VOCABULARY * DIM + LAYERS * (4 * DIM**2 + 3 * DIM * FFN + 2 * DIM) + DIM + LENGTH * DIM // HEADS
    values = np.random.default_rng(0).normal(0, 0.2, size).astype("<f4")
    header = struct.pack("<7i", DIM, FFN, LAYERS, HEADS, HEADS, VOCABULARY, LENGTH)
    path.write_bytes(header + values.tobytes())
    return str(path)


@pytest.fixture(scope="module")
def split():
    ids = np.random.default_rng(1).integers(1, VOCABULARY, (6, 12))
    return ArraySplit(ids, ids)


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    loaded = LlamaModel(checkpoint, length=12).load(LoadContext(None, tmp_path_factory.mktemp("cache")))
    made = ExportStage().apply(loaded, {}, StageContext(None, Cache()))
    return replace(made, input=replace(made.input, output=OutputSpec(whole=True)))


@pytest.fixture(scope="module")
def template(checkpoint):
    return decoder_template(checkpoint)


def quantized(exported, split, **values):
    return QuantizeStage().apply(exported, {"calibration_images": 4, **values}, StageContext(split, Cache()))


@pytest.mark.parametrize("values", [None, {"weight_bits": 8}, {"weight_bits": 4, "activation_bits": 16}])
def test_the_decoder_of_a_candidate_writes_what_the_candidate_says(exported, split, template, values):
    artifact = exported if values is None else quantized(exported, split, **values)
    made = with_layers_of(artifact.proto(), template)
    onnx.checker.check_model(made)
    ids = split.raw[:1]
    (expected,) = open_session(artifact.onnx_bytes, 1).run(None, {artifact.input.name: ids})
    decoder = TextDecoder(made.SerializeToString())
    cache, best = decoder.empty(), []
    for n in range(1, 13):
        token, cache = decoder.read(ids[0, :n].tolist(), cache)
        best += token.tolist()
    assert np.mean(np.array(best) == expected[0].argmax(axis=1)) >= (1 if values is None else 0.9)


@pytest.mark.parametrize("bits", [2, 4])
def test_inputs_of_few_bits_saturate_in_the_decoder_too(exported, split, template, bits):
    """An 8-bit type holds more than such integers: a Clip before it cuts what lies outside the range."""
    made = quantized(exported, split, activation_bits=bits, clipping="percentile", percentile=99.0)
    decoder = with_layers_of(made.proto(), template)
    onnx.checker.check_model(decoder)
    ids = split.raw[:1]
    (expected,) = open_session(made.onnx_bytes, 1).run(None, {made.input.name: ids})
    nothing = np.zeros((LAYERS, HEADS, 0, DIM // HEADS), np.float32)
    feeds = {"ids": ids, "positions": np.arange(12), "past_keys": nothing, "past_values": nothing}
    found = open_session(decoder.SerializeToString(), 1).run(None, feeds)[0]
    assert np.mean(abs(found - expected)) < 1e-3  # without the Clip 0.01 and 0.03


def test_a_decoder_of_half_precision_is_refused(exported, split, template):
    made = quantized(exported, split, precision="float16")
    with pytest.raises(EvaluationError, match=r"embedding\.weight is FLOAT16 in the candidate, not FLOAT"):
        with_layers_of(made.proto(), template)


def test_layers_of_another_network_raise(exported, template):
    with pytest.raises(EvaluationError, match="has no layer blocks"):
        with_layers_of(tiny_model().proto(), template)
    cut = exported.proto()
    for tensor in cut.graph.initializer:
        if tensor.name == "norm.weight":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ones(3, np.float32), "norm.weight"))
    with pytest.raises(EvaluationError, match=r"norm\.weight is \[3\] in the candidate, not \[32\]"):
        with_layers_of(cut, template)


def test_without_a_checkpoint_of_llama2c_there_is_no_decoder():
    for checkpoint in (None, "weights.pth"):
        with pytest.raises(EvaluationError, match=r"model=llama with a \.bin file"):
            decoder_template(checkpoint)


class _Nothing(MeanMetric):
    name = "nothing"


def context_of(exported, split):
    devices = {"host": Device("host", runtime="onnxruntime", measured=True)}
    return EvaluationContext(split, _Nothing(), Reference(exported, np.zeros(0)), devices)


def with_template(evaluator, template):
    """The evaluator, which then exports no decoder."""
    evaluator.__dict__["_template"] = template
    return evaluator


def test_figures_of_a_run(exported, split, template, tmp_path):
    made = DecodingEvaluator(None, prompts=3, prompt_length=4, n_tokens=5, root=str(tmp_path))
    evaluator = with_template(made, template)
    evaluation = evaluator.evaluate(exported, context_of(exported, split))
    found = {m.column: m.value for m in evaluation.measurements}
    per_request = 5 / found["cost.host.tokens_per_s"]
    assert found["cost.host.request_ms"] == pytest.approx(1e3 * per_request)  # IT * time = tokens
    assert set(found) == {"cost.host.tokens_per_s", "cost.host.request_ms"}
    assert evaluation.details["decoding"]["power_absent_because"]


def test_a_draft_is_judged(exported, split, template):
    evaluator = with_template(SpeculativeEvaluator(None, prompts=2, prompt_length=3, n_tokens=20), template)
    context = context_of(exported, split)
    same = {m.name: m.value for m in evaluator.evaluate(exported, context).measurements}
    assert same["draft_acceptance"] == same["same_text"] == 100
    worse = {
        m.name: m.value
        for m in evaluator.evaluate(quantized(exported, split, weight_bits=4), context).measurements
    }
    assert worse["same_text"] == 100
    assert worse["draft_acceptance"] <= 100
    assert worse["planned_speedup"] <= same["planned_speedup"]
    assert "speculative_speedup" in same
    enough = SpeculativeEvaluator(
        None, prompts=2, prompt_length=3, n_tokens=20, memory_bytes=2 * same["planned_bytes"]
    )
    found = {
        m.name: m.value for m in with_template(enough, template).evaluate(exported, context).measurements
    }
    assert found["planned_speedup"] >= same["planned_speedup"]
    small = SpeculativeEvaluator(None, prompts=2, prompt_length=3, n_tokens=20, memory_bytes=1000)
    with pytest.raises(EvaluationError, match="budget_bytes: 1000 bytes do not hold both models"):
        with_template(small, template).evaluate(exported, context)


def test_other_devices_are_modelled(checkpoint, exported, split):
    board = Device(
        "board",
        runtime="some",
        macs_per_s={"float32": {"default": 1e15}, "int8": {"default": 1e15}},
        memory_bandwidth_bytes_per_s=1e6,
        active_power_mw=500.0,
    )
    context = replace(context_of(exported, split), devices={"board": board})
    evaluator = DecodingEvaluator(checkpoint, prompt_length=3, n_tokens=8)
    of_float, of_four = (
        {m.name: m.value for m in evaluator.evaluate(artifact, context).measurements}
        for artifact in (exported, quantized(exported, split, weight_bits=4))
    )
    linear = LAYERS * (4 * DIM**2 + 3 * DIM * FFN)
    vectors = (2 * LAYERS + 1) * DIM
    cache = 2 * LAYERS * DIM * (3 + 4 + 1)
    # The embedding's rows are looked up, but the output layer reads all of it.
    assert of_float["bytes_per_token"] == 4 * (linear + VOCABULARY * DIM + vectors + cache)
    assert of_float["tokens_per_s"] == pytest.approx(1e6 / of_float["bytes_per_token"])
    assert of_float["joules_per_token"] == pytest.approx(0.5 / of_float["tokens_per_s"])
    # The pass over the prompt reads all weights, too, and writes the prompt's entries of the cache; it yields the first token.
    first = 4 * (linear + VOCABULARY * DIM + vectors + 2 * LAYERS * DIM * 3)
    assert of_float["request_ms"] == pytest.approx(1e3 * (first + 7 * of_float["bytes_per_token"]) / 1e6)
    last = 2 * LAYERS * DIM * (3 + 8 - 1)
    assert of_float["decoder_bytes"] == 4 * (linear + VOCABULARY * DIM + vectors + last)
    assert of_four["decoder_bytes"] < of_float["decoder_bytes"]
    saved = of_float["bytes_per_token"] - of_four["bytes_per_token"]
    assert 0.8 * 3.5 * linear < saved < 3.5 * linear + 2 * vectors
    assert evaluator.follows_structure(context)
    assert not evaluator.follows_structure(context_of(exported, split))  # this machine is timed
    nothing = replace(context, devices={"board": Device("board", runtime="some")})
    assert evaluator.evaluate(exported, nothing).details["decoding"]["absent_because"]
    with pytest.raises(EvaluationError, match="model=llama"):
        DecodingEvaluator(None).evaluate(exported, context)


def on_a_board_that_reads_slowly(exported, split):
    """A context with a device whose time is that of its memory."""
    board = Device(
        "board",
        runtime="some",
        macs_per_s={"float32": {"default": 1e15}, "int8": {"default": 1e15}},
        memory_bandwidth_bytes_per_s=1e6,
    )
    return replace(context_of(exported, split), devices={"board": board})


def test_weights_are_read_in_their_packed_form(checkpoint, exported, split):
    """3-bit integers lie in a 4-bit type in the file, and weights without a type as floats."""
    context = on_a_board_that_reads_slowly(exported, split)
    evaluator = DecodingEvaluator(checkpoint, prompt_length=3, n_tokens=8)

    def read(**values):
        made = quantized(exported, split, **values)
        found = {m.name: m.value for m in evaluator.evaluate(made, context).measurements}
        return made, found["bytes_per_token"]

    linear = LAYERS * (4 * DIM**2 + 3 * DIM * FFN)
    assert read(weight_bits=4)[1] - read(weight_bits=3)[1] == pytest.approx(linear / 8)
    made, n_bytes = read(precision="weights_only", weight_format="gwq", group_size=16)
    packed = sum(weight.packed_bytes for weight in stored_weights(made.proto()).values())
    cache = 2 * LAYERS * DIM * (3 + 4 + 1)
    vectors = (2 * LAYERS + 1) * DIM
    assert n_bytes == pytest.approx(packed + 4 * (VOCABULARY * DIM + cache) + 2 * vectors)


@pytest.mark.parametrize(("bits", "per_head"), [(2, 4 + 4), (4, 8 + 4), (8, 16 + 4), (16, 32)])
def test_the_cache_counts_at_its_bits(checkpoint, exported, split, template, bits, per_head):
    context = on_a_board_that_reads_slowly(exported, split)
    evaluator = DecodingEvaluator(checkpoint, prompt_length=3, n_tokens=8)
    made = quantized(exported, split, kv_bits=bits)
    of_float, of_few = (
        {m.name: m.value for m in evaluator.evaluate(a, context).measurements}
        for a in (quantized(exported, split), made)
    )
    heads = 2 * LAYERS * HEADS  # keys and values, of 16 elements
    saved = heads * (16 * 4 - per_head)
    assert of_float["decoder_bytes"] - of_few["decoder_bytes"] == (3 + 8 - 1) * saved
    assert of_float["bytes_per_token"] - of_few["bytes_per_token"] == pytest.approx((3 + 4 + 1) * saved)
    decoder = with_layers_of(made.proto(), template)
    onnx.checker.check_model(decoder)
    assert cache_bits(decoder) == bits


def test_a_simulated_cache_is_not_timed_but_drafts(exported, split, template):
    made, context = quantized(exported, split, kv_bits=2), context_of(exported, split)
    evaluator = with_template(DecodingEvaluator(None, prompt_length=3, n_tokens=4), template)
    evaluation = evaluator.evaluate(made, context)
    assert evaluation.measurements == ()
    assert "simulates kv_bits=2" in evaluation.details["decoding"]["absent_because"]
    draft = with_template(SpeculativeEvaluator(None, prompts=2, prompt_length=3, n_tokens=20), template)
    found = {m.name: m.value for m in draft.evaluate(made, context).measurements}
    assert found["same_text"] == 100
    assert "speculative_speedup" not in found
    wide = {m.name: m.value for m in draft.evaluate(quantized(exported, split), context).measurements}
    assert found["draft_acceptance"] < wide["draft_acceptance"]


@pytest.mark.slow  # exports one more network
def test_of_experts_those_that_a_token_uses_are_read(checkpoint, exported, split, tmp_path):
    n_experts, active = 4, 2
    moe = MoeModel(checkpoint, n_experts, active, every=2, length=12).load(LoadContext(None, tmp_path))
    made = ExportStage().apply(moe, {}, StageContext(None, Cache()))
    board = Device(
        "board",
        runtime="some",
        macs_per_s={"float32": {"default": 1e15}},
        memory_bandwidth_bytes_per_s=1e6,
    )
    context = replace(context_of(exported, split), devices={"board": board})
    dense, found = (
        {
            m.name: m.value
            for m in DecodingEvaluator(checkpoint, prompt_length=3, n_tokens=8)
            .evaluate(a, context)
            .measurements
        }
        for a in (exported, made)
    )
    expert, router = 3 * DIM * FFN, DIM * n_experts
    assert found["bytes_per_token"] - dense["bytes_per_token"] == pytest.approx(
        4 * (active * expert + router)
    )
    assert found["decoder_bytes"] - dense["decoder_bytes"] == 4 * (n_experts * expert + router)
    with pytest.raises(
        EvaluationError, match=r"the decoder has no weight blocks\.1\.ffn\.|no layer blocks\.1\.ffn"
    ):
        DecodingEvaluator(checkpoint).evaluate(made, context_of(exported, split))


@pytest.mark.parametrize("settings", [{"n_tokens": 0}, {"prompts": 0}, {"threads": 0}])
def test_impossible_settings_raise(settings):
    for evaluator in (DecodingEvaluator, SpeculativeEvaluator):
        with pytest.raises(ConfigError, match="must be a whole number from 1 on"):
            evaluator(None, **settings)


@pytest.mark.slow  # each evaluator exports a decoder
class TestConformance(EvaluatorConformance):
    @pytest.fixture(autouse=True, params=[DecodingEvaluator, SpeculativeEvaluator])
    def _inputs(self, request, checkpoint, exported, split):
        self.made, self.exported, self.split = (
            request.param(checkpoint, n_tokens=4, prompt_length=3),
            exported,
            split,
        )

    def make_evaluator(self):
        return self.made

    def make_artifacts(self):
        return [self.exported, quantized(self.exported, self.split)]

    def make_context(self):
        return context_of(self.exported, self.split)
