from dataclasses import replace

import numpy as np
import pytest

from evaluators.base import EvaluationContext, Reference
from evaluators.cost.expert_cache import ExpertCacheEvaluator, experts_bytes
from evaluators.cost.language.expert_cache import consistency_of, hit_rates, window_uses
from evaluators.devices.device import Device
from evaluators.metric import MeanMetric
from evaluators.runtime import open_session
from evaluators.sizes import sizes_of
from evaluators.testing import EvaluatorConformance, tiny_context, tiny_model
from spaces.errors import ConfigError, EvaluationError
from spaces.models.base import LoadContext
from spaces.models.export import ExportStage
from spaces.models.zoo.language.moe import MoeModel
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.array_split import ArraySplit
from spaces.stages.cache import Cache
from spaces.stages.output_spec import OutputSpec
from spaces.stages.stage import StageContext

N_EXPERTS, TOP_K, LAYERS, DIM, FFN, LENGTH = 4, 2, 2, 32, 48, 24
SIZES = {"dim": DIM, "ffn_dim": FFN, "n_layers": LAYERS, "n_heads": 2, "n_kv_heads": 2, "vocabulary_size": 50}


@pytest.fixture(scope="module")
def split():
    ids = np.random.default_rng(1).integers(1, 50, (6, LENGTH + 1))
    labels = ids[:, 1:].copy()
    labels[0, 10:] = -1  # a short text
    labels[1, 3:] = -1  # one that is shorter than a segment
    return ArraySplit(ids[:, :-1], labels)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    source = MoeModel(None, N_EXPERTS, TOP_K, max_length=LENGTH, length=LENGTH, **SIZES)
    made = ExportStage().apply(
        source.load(LoadContext(None, tmp_path_factory.mktemp("cache"))), {}, StageContext(None, Cache())
    )
    return replace(made, input=replace(made.input, output=OutputSpec(whole=True)))


class _Nothing(MeanMetric):
    name = "nothing"


@pytest.fixture
def context(exported, split):
    board = Device("board", runtime="some", memory_bandwidth_bytes_per_s=1e6)
    return EvaluationContext(split, _Nothing(), Reference(exported, np.zeros(0)), {"board": board})


def values(evaluation):
    return {m.name: m.value for m in evaluation.measurements}


class TestConformance(EvaluatorConformance):
    @pytest.fixture(autouse=True)
    def _inputs(self, exported, context, split):
        quantized = QuantizeStage().apply(exported, {"calibration_images": 4}, StageContext(split, Cache()))
        self.artifacts, self.context = [exported, quantized], context

    def make_evaluator(self):
        return ExpertCacheEvaluator(segment=4)

    def make_artifacts(self):
        return self.artifacts

    def make_context(self):
        return self.context


class TestConformanceWithoutExperts(EvaluatorConformance):
    def make_evaluator(self):
        return ExpertCacheEvaluator()


def test_the_routing_is_the_networks_own(exported, context, split):
    """Choices, recomputed from the routers' inputs text by text, give the same figures."""
    import onnx

    proto = exported.proto()
    routers = [node for node in proto.graph.node if node.op_type == "MatMul" and "router" in node.input[1]]
    weights = {i.name: onnx.numpy_helper.to_array(i) for i in proto.graph.initializer}
    proto.graph.output.extend(onnx.ValueInfoProto(name=node.input[0]) for node in routers)
    session = open_session(proto.SerializeToString(), 1)
    traces = []
    for ids, labels in zip(split.raw, split.labels, strict=True):
        n = int((labels >= 0).sum())
        inputs = session.run([node.input[0] for node in routers], {exported.input.name: ids[None]})
        logits = [x[0, :n] @ weights[node.input[1]] for x, node in zip(inputs, routers, strict=True)]
        if n >= 4:
            traces.append(np.array([np.argsort(-x, axis=1)[:, :TOP_K] for x in logits]))
    assert [t.shape[1] for t in traces] == [10, 24, 24, 24, 24]
    found = values(ExpertCacheEvaluator(segment=4, cache_ratio=1.5).evaluate(exported, context))
    hits = sum(hit_rates(t, N_EXPERTS, 4)[3 - 1] * t.size for t in traces) / sum(t.size for t in traces)
    assert found["expert_hit_rate"] == pytest.approx(100 * hits)
    assert found["routing_srp_low"] <= found["routing_srp"] <= found["routing_srp_high"]
    (alone,) = [t for t in traces if t.shape[1] == 10]
    one = replace(context, split=split.subset(np.array([0])))
    assert values(ExpertCacheEvaluator(segment=4).evaluate(exported, one))["routing_srp"] == pytest.approx(
        100 * consistency_of(window_uses(alone, N_EXPERTS, 4)).srp
    )


def test_a_segment_of_one_token_has_a_perfect_set(exported, context):
    assert values(ExpertCacheEvaluator(segment=1).evaluate(exported, context))["routing_srp"] == 100


def test_larger_caches_hit_more_and_none_less_than_the_least_recently_used(exported, context):
    found = [
        values(ExpertCacheEvaluator(segment=4, cache_ratio=ratio).evaluate(exported, context))
        for ratio in (1, 1.5, 2, 5)
    ]
    rates = [each["expert_hit_rate"] for each in found]
    assert rates == sorted(rates)
    assert rates[0] < rates[-1] == 100
    assert all(each["lru_hit_rate"] <= each["expert_hit_rate"] for each in found)
    assert [each["expert_load_ms"] > 0 for each in found] == [True, True, False, False]


def test_an_empty_cache_misses_what_comes_first(exported, context):
    warm, cold = (
        values(ExpertCacheEvaluator(segment=4, cache_ratio=5, cold_start=cold).evaluate(exported, context))
        for cold in (False, True)
    )
    assert cold["expert_hit_rate"] < warm["expert_hit_rate"] == 100
    assert cold["expert_load_ms"] > 0 == warm["expert_load_ms"]


def test_costs_are_those_of_the_file(exported, context):
    found = values(ExpertCacheEvaluator(segment=4, cache_ratio=1).evaluate(exported, context))
    one = 4 * 3 * DIM * FFN
    packed = sizes_of(exported)[1].value
    # Equal copies of one matrix are one tensor of the file, if they are small; these are not.
    assert experts_bytes(exported.proto()) == LAYERS * N_EXPERTS * one
    assert found["cached_bytes"] == packed - LAYERS * (N_EXPERTS - TOP_K) * one
    misses = LAYERS * TOP_K * (1 - found["expert_hit_rate"] / 100)
    assert found["expert_load_ms"] == pytest.approx(1e3 * misses * one / 1e6)


def test_without_texts_that_fill_a_segment_or_without_tokens_it_raises(exported, context, split):
    with pytest.raises(EvaluationError, match=r"segment=25: the longest text has 24 tokens"):
        ExpertCacheEvaluator(segment=25).evaluate(exported, context)
    numbers = ArraySplit(split.raw, split.labels[:, 0])
    with pytest.raises(EvaluationError, match=r"reads texts of tokens"):
        ExpertCacheEvaluator(segment=2).evaluate(exported, replace(context, split=numbers))
    assert "absent_because" in str(
        ExpertCacheEvaluator().evaluate(tiny_model(), tiny_context()).details["expert_cache"]
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"segment": 0}, r"evaluator\.expert_cache\.segment must be a whole number from 1 on"),
        ({"cache_ratio": 0.5}, r"cache_ratio \(0\.5\) must be at least 1"),
        ({"confidence": 1.0}, r"confidence \(1\.0\) lie between"),
    ],
)
def test_impossible_settings_raise(settings, message):
    with pytest.raises(ConfigError, match=message):
        ExpertCacheEvaluator(**settings)
