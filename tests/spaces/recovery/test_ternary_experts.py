from dataclasses import replace

import numpy as np
import pytest
import torch

from evaluators.sizes import sizes_of
from spaces.models.base import LoadContext
from spaces.models.export import ExportStage
from spaces.models.weight_formats import KEY, trained_formats
from spaces.models.zoo.language.moe import MoeModel
from spaces.quantization.formats.stored import stored_weights
from spaces.quantization.quantize import QuantizeStage
from spaces.recovery.knobs import KNOBS, Parts, canonical
from spaces.recovery.recover import RecoverStage
from spaces.recovery.ternary_experts import FORMAT, ternarized, with_ternary_experts
from spaces.stages.array_split import ArraySplit
from spaces.stages.cache import Cache
from spaces.stages.output_spec import OutputSpec
from spaces.stages.pipeline import Pipeline
from spaces.stages.stage import StageContext
from spaces.stages.testing import content_of

SMALL = {
    "dim": 32,
    "ffn_dim": 48,
    "n_layers": 2,
    "n_heads": 2,
    "n_kv_heads": 2,
    "vocabulary_size": 50,
    "max_length": 12,
    "length": 8,
}
TERNARY = {"epochs": 2, "experts": "ternary", "learning_rate": 0.01, "batch_size": 8, "augmentation": "none"}


@pytest.fixture(scope="module")
def moe(tmp_path_factory):
    made = MoeModel(**SMALL, n_experts=3).load(LoadContext(None, tmp_path_factory.mktemp("cache")))
    return replace(made, input=replace(made.input, output=OutputSpec(whole=True)))


@pytest.fixture
def context(moe):
    ids = np.random.default_rng(0).integers(1, 50, (16, 9))
    split = ArraySplit(ids[:, :-1], ids[:, 1:])
    return StageContext(split, Cache(), train=split, teacher=moe, accelerator="cpu", loss="tokens")


def is_expert(name):
    return ".experts." in name


@pytest.mark.parametrize("changed", [{"experts": "float"}, {"balance_weight": 0.5}])
def test_the_knobs_of_experts_matter_to_a_network_that_has_some(moe, context, changed):
    stage = RecoverStage(threads=1)
    chosen = stage.canonical(moe, {**stage.defaults(), **TERNARY, "lora_rank": 2}, context)
    assert (chosen["experts"], chosen["lora_rank"]) == ("ternary", 0)
    assert stage.canonical(moe, chosen, context) == chosen
    before = content_of(moe)
    made = stage.apply(moe, TERNARY, context)
    assert content_of(moe) == before
    assert made.digest == stage.apply(moe, TERNARY, context).digest
    assert made.digest != stage.apply(moe, {**TERNARY, **changed}, context).digest
    assert not stage.empty_knobs(moe, {"epochs": (1,), "experts": ("float", "ternary")}, context)


def test_expert_weights_have_three_values_and_the_rest_is_unchanged(moe, context):
    made = RecoverStage(threads=1).apply(moe, TERNARY, context).model
    before = moe.model.state_dict()
    for name, value in made.state_dict().items():
        if is_expert(name):
            unique = value.unique()
            assert len(unique) == 3
            assert unique[1] == 0
            assert unique[0] == -unique[2]
        elif ".router." in name:
            assert not torch.equal(value, before[name])
        else:
            assert torch.equal(value, before[name])


@pytest.mark.parametrize("values", [{"experts": "float"}, {"experts": "float", "lora_rank": 2}])
def test_the_shared_network_is_unchanged_by_any_training(moe, context, values):
    made = RecoverStage(threads=1).apply(moe, {**TERNARY, **values}, context).model
    before = moe.model.state_dict()
    changed = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(is_expert(name) or ".router." in name for name in changed)


def test_the_network_computes_with_the_weights_that_are_stored(moe):
    changed = with_ternary_experts(moe.model)
    for name, parameter in changed.named_parameters():
        if is_expert(name):
            parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
    ids = torch.arange(8)[None]
    expected = changed(ids)
    result = ternarized(changed, moe.model)
    torch.testing.assert_close(result(ids), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(expected, moe.model(ids))


def test_gradients_pass_the_rounding(moe):
    layer = with_ternary_experts(moe.model).blocks[0].ffn.experts[0].up
    (3 * layer.weight).sum().backward()
    assert (layer.parametrizations.weight.original.grad == 3).all()


def test_packed_bytes_are_those_of_the_format(moe, context):
    pipeline = Pipeline([RecoverStage(threads=1), ExportStage()])
    ternary, plain = (
        pipeline.run(moe, {"recover": {**RecoverStage().defaults(), **values}}, context)
        for values in (TERNARY, {})
    )
    assert KEY.encode() not in plain.onnx_bytes
    shapes = {i.name: tuple(i.dims) for i in ternary.proto().graph.initializer if is_expert(i.name)}
    assert len(shapes) == 2 * 3 * 3
    assert trained_formats(ternary.proto()) == {n: ("ternary", shape) for n, shape in shapes.items()}
    file_bytes, packed = (m.value for m in sizes_of(ternary))
    assert file_bytes - packed == sum(4 * 32 * 48 - FORMAT.n_bytes(shape) for shape in shapes.values())
    assert FORMAT.n_bytes((32, 48)) == -(-32 * 48 // 5) + 4
    again = pipeline.run(moe, {"recover": {**RecoverStage().defaults(), **TERNARY}}, context)
    assert again.digest == ternary.digest  # from the cache
    # Once they are integers, they count as such.
    quantized = QuantizeStage().apply(ternary, {"calibration_images": 4}, context)
    assert stored_weights(quantized.proto()) == {}
    file_bytes, packed = (m.value for m in sizes_of(quantized))
    assert file_bytes == packed


def test_ternary_experts_are_for_networks_that_have_some(student, split):
    stage, context = RecoverStage(threads=1), StageContext(None, Cache(), train=split, accelerator="cpu")
    domains = {"epochs": (1,), "experts": ("float", "ternary"), "balance_weight": (0.1, 0.2)}
    assert set(stage.empty_knobs(student, domains, context)) == {"experts", "balance_weight"}
    chosen = stage.canonical(student, {"epochs": 1, "experts": "ternary", "lora_rank": 2}, context)
    assert (chosen["experts"], chosen["lora_rank"]) == ("float", 2)


def test_biases_alone_beside_ternary_experts_whatever_the_rank_is():
    defaults = {knob.name: knob.default for knob in KNOBS}
    values = {**defaults, "epochs": 1, "experts": "ternary", "tune": "bias", "lora_rank": 4, "adapters": 2}
    found = canonical(values, Parts(experts=True))
    assert (found["lora_rank"], found["adapters"], found["tune"]) == (0, 1, "bias")
