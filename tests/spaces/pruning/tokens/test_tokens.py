import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from spaces.errors import StageError
from spaces.models.export import ExportStage
from spaces.pruning.tokens.testing import SmallTransformer
from spaces.pruning.tokens.token_knobs import PICKS
from spaces.pruning.tokens.tokens import TokenStage
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import StageConformance, noise_split
from spaces.stages.torch_artifact import torch_artifact

IMAGES, SIGNALS = (3, 16, 16), (6, 64)
CONTEXT = StageContext(None, Cache())


def _artifact(shape, **settings):
    torch.manual_seed(0)
    return torch_artifact(SmallTransformer(shape, **settings), InputSpec(shape))


class TestOfImages(StageConformance):
    @pytest.fixture
    def stage(self):
        return TokenStage()

    @pytest.fixture
    def artifact(self):
        return _artifact(IMAGES, has_class=True, depth=4)

    @pytest.fixture
    def value_sets(self):
        return [
            {"method": "propagate", "drop": 2},
            {"method": "propagate", "drop": 2, "alpha": 0.0},
            {"method": "dpc_knn", "keep": 0.5},
        ]

    def alternatives(self, knob):
        small = {"drop": (1,), "neighbours": (2,), "cuts": (2,), "first_cut": (2,), "keep": (0.25,)}
        return small.get(knob.name) or super().alternatives(knob)


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        (IMAGES, {"method": "propagate", "drop": 3, "token_scale": True}),
        (IMAGES, {"method": "propagate", "drop": 3, "selection": "random", "alpha": 0.0}),
        *((SIGNALS, {"method": pick, "keep": 0.5, "cuts": 2}) for pick in PICKS),
    ],
)
def test_exported_and_in_8_bits_it_runs_in_onnxruntime(shape, values):
    stage, start = TokenStage(), _artifact(shape, per_step=shape == SIGNALS)
    made = stage.apply(start, stage.defaults() | values, CONTEXT)
    inputs = np.random.default_rng(1).standard_normal((3, *shape)).astype(np.float32)
    with torch.no_grad():
        wanted = made.model(torch.from_numpy(inputs)).numpy()
    for context in (StageContext(None, Cache(), draft=True), CONTEXT):
        exported = ExportStage().apply(made, {}, context)
        np.testing.assert_allclose(_run(exported, inputs), wanted, rtol=1e-4, atol=1e-4)
    quantize, context = QuantizeStage(), StageContext(noise_split(shape), Cache())
    chosen = quantize.canonical(exported, quantize.defaults() | {"calibration_images": 8}, context)
    assert np.isfinite(_run(quantize.apply(exported, chosen, context), inputs)).all()


def _run(artifact, inputs):
    session = onnxruntime.InferenceSession(artifact.onnx_bytes, providers=["CPUExecutionProvider"])
    return session.run(None, {artifact.input.name: inputs})[0]


def test_weights_keep_their_names_and_notes_say_how_many_tokens_are_left():
    stage, start = TokenStage(), _artifact(IMAGES)
    made = stage.apply(start, stage.defaults() | {"method": "propagate", "drop": 2}, CONTEXT)
    assert list(made.model.state_dict()) == list(start.model.state_dict())
    assert made.notes["tokens"] == {"tokens_per_block": [16, 14, 12]}
    signal = _artifact(SIGNALS, depth=5)
    values = {"method": "sample", "keep": 0.5, "cuts": 2, "first_cut": 2}
    made = stage.apply(signal, stage.defaults() | values, CONTEXT)
    assert made.notes["tokens"] == {"tokens_per_block": [16, 16, 8, 4, 4]}


@pytest.mark.parametrize(
    ("values", "same"),
    [
        ({"method": "none", "drop": 3}, {}),
        ({"method": "propagate"}, {}),
        ({"method": "sample", "keep": 1.0, "cuts": 2}, {}),
        ({"method": "sample", "keep": 0.98}, {}),  # of 16 tokens
        (
            {"method": "propagate", "drop": 1, "alpha": 0.0, "graph": "semantic", "token_scale": True},
            {"method": "propagate", "drop": 1, "alpha": 0.0},
        ),
        (
            {"method": "propagate", "drop": 1, "graph": "spatial", "neighbours": 3, "keep": 0.5},
            {"method": "propagate", "drop": 1, "graph": "spatial"},
        ),
        ({"method": "motion", "keep": 0.5, "neighbours": 3, "drop": 2}, {"method": "motion", "keep": 0.5}),
    ],
)
def test_knobs_without_effect_have_their_defaults(values, same):
    stage, start = TokenStage(), _artifact(IMAGES)
    wanted = stage.defaults() | same
    assert stage.canonical(start, stage.defaults() | values, CONTEXT) == wanted


@pytest.mark.parametrize(
    ("shape", "values", "message"),
    [
        (IMAGES, {"method": "propagate", "drop": 6}, "drop=6 in each of 3 blocks leaves none of 16 tokens"),
        (IMAGES, {"method": "propagate", "drop": 1, "selection": "class_max"}, "needs a class token"),
        (IMAGES, {"method": "propagate", "drop": 1, "neighbours": 16}, "neighbours=16 are more than"),
        (SIGNALS, {"method": "propagate", "drop": 1}, "needs patches of an image"),
        (SIGNALS, {"method": "sample", "keep": 0.5, "first_cut": 3}, "first_cut=3 is too much for 3 blocks"),
        (SIGNALS, {"method": "sample", "keep": 0.5, "first_cut": 2, "cuts": 2}, "more than 3 blocks"),
        (SIGNALS, {"method": "shorten"}, "must be one of"),
        (SIGNALS, {"metod": "sample"}, "Did you mean 'method'"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason(shape, values, message):
    stage, start = TokenStage(), _artifact(shape)
    with pytest.raises(StageError, match=message):
        stage.canonical(start, stage.defaults() | values, CONTEXT)


def test_a_knob_without_effect_is_no_reason_to_refuse_a_network():
    stage, start = TokenStage(), _artifact((3, 8, 8))  # 4 tokens, fewer than the default of neighbours
    values = stage.defaults() | {"method": "propagate", "drop": 1, "graph": "spatial"}
    assert stage.canonical(start, values, CONTEXT) == values
    with pytest.raises(StageError, match="neighbours=5 are more than 4 tokens have"):
        stage.canonical(start, values | {"graph": "mixed"}, CONTEXT)


def test_values_that_do_not_suit_the_network_are_named_before_the_search():
    stage, signal = TokenStage(), _artifact(SIGNALS)
    domains = {"method": ("none", "propagate", "sample"), "selection": ("class_max",), "first_cut": (1, 3)}
    found = stage.unsuited(signal, domains, CONTEXT)
    assert {name: list(values) for name, values in found.items()} == {
        "method": ["propagate"],
        "selection": ["class_max"],
        "first_cut": [3],
    }
    with pytest.raises(StageError, match="needs a class token"):
        stage.check(signal, domains, CONTEXT)
    with pytest.raises(StageError, match="token_blocks"):
        stage.check(torch_artifact(nn.Linear(4, 2), InputSpec((4,))), domains, CONTEXT)


def test_a_network_that_calls_block_by_block_is_refused():
    class Loop(SmallTransformer):
        def forward(self, x):
            tokens = self.embed(x).flatten(2).transpose(1, 2)
            for block in self.blocks:
                tokens = block(tokens)
            return tokens.mean(1)

    artifact = torch_artifact(Loop(IMAGES), InputSpec(IMAGES))
    with pytest.raises(StageError, match="as a whole"):
        TokenStage().canonical(artifact, {}, CONTEXT)
