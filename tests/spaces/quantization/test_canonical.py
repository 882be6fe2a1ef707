"""Canonical values, combinations that cannot be built, and empty knobs."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spaces.errors import StageError
from spaces.quantization.knobs import KNOBS
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext

LAYERS = ("stem", "expand", "depthwise", "project", "classifier")
NAMES = tuple(f"{name}.weight" for name in LAYERS)


@pytest.fixture
def canonical(small, context):
    stage = QuantizeStage()
    return lambda **values: stage.canonical(small, values, context)


def test_defaults_are_canonical(canonical, noise):
    assert canonical() == {knob.name: knob.default for knob in KNOBS} | {"calibration_images": len(noise)}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"calibration_images": 64}, {"calibration_images": 10_000}),
        ({"percentile": 99.0}, {"percentile": 99.9}),
        ({"clipping": "percentile", "percentile": 100.0}, {"clipping": "max"}),
        ({"clipping": "kl", "activation_bits": 16}, {"clipping": "max", "activation_bits": 16}),
        ({"reduce_range": True, "weight_bits": 4}, {"weight_bits": 4}),
        ({"weight_bits": dict.fromkeys(NAMES, 4)}, {"weight_bits": 4}),
        ({"weight_bits": {}}, {"weight_bits": 8}),
        ({"weight_bits": {"stem.weight": 4}, "keep_float": ("stem*",)}, {"keep_float": ("stem.weight",)}),
        ({"weight_bits": {"stem.weight": 8, "expand.weight": 4}}, {"weight_bits": {"expand.weight": 4}}),
        ({"keep_float": ("stem*", "expand*")}, {"keep_float": ("expand.weight", "st?m.weight")}),
        (
            {"keep_float": ("stem*", "classifier*", "expand*")},
            {"mixed_precision": True, "keep_float": ("expand*",)},
        ),
        ({"keep_float": ("stem*",), "mixed_precision": True}, {"mixed_precision": True}),
        ({"keep_float": ("*",), "scheme": "symmetric", "weight_bits": 4}, {"keep_float": NAMES}),
    ],
)
def test_equal_settings(canonical, small, context, one, other):
    assert canonical(**one) == canonical(**other)
    stage = QuantizeStage()
    assert stage.apply(small, one, context).digest == stage.apply(small, other, context).digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"clipping": "percentile", "percentile": 99.0}, {"clipping": "percentile", "percentile": 95.0}),
        ({"clipping": "percentile", "activation_bits": 16, "percentile": 95.0}, {"activation_bits": 16}),
        ({"keep_float": ("stem*",)}, {"keep_float": ("expand*",)}),
        ({"weight_bits": {"stem.weight": 4}}, {"weight_bits": {"expand.weight": 4}}),
        ({"weight_bits": {"stem.weight": 4}, "reduce_range": True}, {"weight_bits": {"stem.weight": 4}}),
    ],
)
def test_different_settings(canonical, small, context, one, other):
    assert canonical(**one) != canonical(**other)
    stage = QuantizeStage()
    assert stage.apply(small, one, context).digest != stage.apply(small, other, context).digest


value_sets = st.fixed_dictionaries(
    {
        "calibration_images": st.sampled_from([1, 7, 64, 500]),
        "degraded_share": st.sampled_from([0.0, 0.5]),
        "scheme": st.sampled_from(["asymmetric", "symmetric", "symmetric_uint8", "symmetric_power2"]),
        "clipping": st.sampled_from(["max", "kl", "percentile", "mse"]),
        "percentile": st.sampled_from([95.0, 99.99, 100.0]),
        "granularity": st.sampled_from(["tensor", "channel"]),
        "mixed_precision": st.booleans(),
        "weight_bits": st.sampled_from([4, 8])
        | st.dictionaries(st.sampled_from(NAMES), st.sampled_from([4, 8])),
        "activation_bits": st.sampled_from([8, 16]),
        "keep_float": st.lists(st.sampled_from(NAMES), max_size=3).map(tuple),
        "bias_correction": st.booleans(),
        "cross_layer_equalization": st.booleans(),
        "activation_type": st.sampled_from(["unsigned", "signed"]),
        "weight_type": st.sampled_from(["unsigned", "signed"]),
        "format": st.sampled_from(["qdq", "qoperator"]),
        "reduce_range": st.booleans(),
    }
)


@given(values=value_sets)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_all_accepted_settings_build_and_run(small, context, noise, run, values):
    stage = QuantizeStage()
    try:
        chosen = stage.canonical(small, values, context)
    except StageError as error:
        assert "qoperator" in str(error)  # noqa: PT017 - which combinations are refused is the point
        return
    assert stage.canonical(small, chosen, context) == chosen
    result = stage.apply(small, values, context)
    assert stage.apply(small, chosen, context).digest == result.digest
    assert run(result, noise.inputs[:4]).shape == (4, 5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "qoperator", "weight_bits": 4}, "format=qoperator .* weight_bits must be 8"),
        ({"format": "qoperator", "weight_bits": {"stem.weight": 4}}, "weight_bits must be 8"),
        ({"format": "qoperator", "activation_bits": 16}, "activation_bits must be 8"),
        (
            {"format": "qoperator", "activation_type": "signed", "weight_type": "unsigned"},
            "no kernel for signed",
        ),
        ({"keep_float": ("steam*",)}, r"layer pattern 'steam\*' in quantize.keep_float.*stem.weight"),
        (
            {"weight_bits": {"steam.weight": 4}},
            "'steam.weight' in quantize.weight_bits.*Did you mean 'stem.weight'",
        ),
        ({"weight_bits": {"stem.weight": 1}}, r"weight_bits must be one of \[2, 3, 4, 5, 6, 7, 8\], not 1"),
        ({"scheme": "symetric"}, "scheme must be one of"),
        ({"percentile": 50.0}, "percentile must lie between 90"),
        ({"calibration_images": 0}, "calibration_images must lie between 1"),
        ({"sceme": "symmetric"}, "Unknown knob 'sceme'.*Did you mean 'scheme'"),
    ],
)
def test_combinations_that_cannot_be_built_raise(canonical, values, message):
    with pytest.raises(StageError, match=message):
        canonical(**values)


def test_keep_float_does_not_require_an_integer_operator(canonical):
    chosen = canonical(format="qoperator", weight_bits={"stem.weight": 4}, keep_float=("stem*",))
    assert chosen["weight_bits"] == 8


def test_globs_are_checked_at_the_start(small):
    QuantizeStage().check_globs(small, ["stem*", "classifier.weight"])
    with pytest.raises(StageError, match="'head'"):
        QuantizeStage().check_globs(small, ["stem*", "head"])


class TestEmptyKnobs:
    def empty_knobs(self, artifact, context, **domains):
        return QuantizeStage().empty_knobs(artifact, domains, context)

    def test_a_full_space_has_no_empty_knobs(self, small, context):
        of_transformers = ("activation_matmuls", "integer_functions", "gelu_limit", "kv_bits")
        domains = {k.name: k.allowed or () for k in KNOBS if k.name not in of_transformers} | {
            "keep_float": ((), ("stem*",)),
            "calibration_images": (1, 8),
        }
        assert self.empty_knobs(small, context, **domains) == {}

    @pytest.mark.parametrize(
        ("knob", "domains"),
        [
            ("percentile", {"percentile": (99.0, 99.9), "clipping": ("max", "kl")}),
            ("percentile", {"percentile": ()}),
            ("reduce_range", {"reduce_range": (False, True), "weight_bits": (4,)}),
            ("calibration_images", {"calibration_images": (64, 1000)}),
            ("keep_float", {"keep_float": (("stem*",), ("stem.weight",))}),
            ("clipping", {"clipping": ("max", "kl"), "activation_bits": (16,)}),
        ],
    )
    def test_knobs_without_effect_in_the_space(self, small, context, knob, domains):
        assert list(self.empty_knobs(small, context, **domains)) == [knob]

    def test_knobs_without_effect_in_the_network(self, lonely, context):
        domains = {"cross_layer_equalization": (False, True), "bias_correction": (False, True), "scheme": ()}
        assert set(self.empty_knobs(lonely, context, **domains)) == {
            "cross_layer_equalization",
            "bias_correction",
        }

    def test_a_knob_with_one_value_is_not_listed(self, lonely, context):
        assert self.empty_knobs(lonely, context, cross_layer_equalization=(True,)) == {}

    def test_without_calibration_data(self, small):
        empty_knobs = self.empty_knobs(small, StageContext(None, Cache()), calibration_images=(64, 1000))
        assert empty_knobs == {}
