"""MatMul nodes of two activations: float unless asked for, then integer in plain onnxruntime, by every form of the file."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from spaces.errors import StageError
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import StageConformance, noise_split

SHAPE = (6, 8)
ASKED = {"activation_matmuls": True}


def context():
    return StageContext(noise_split(SHAPE, 32), Cache())


@pytest.fixture
def attention(build):
    """One attention layer of one head, and a linear layer; its scores are scaled or not."""

    def make(scaled=True):
        b = build(SHAPE)

        def constant(name, *shape):
            return b.constant(name, (b.rng.standard_normal(shape) / 3).astype(np.float32))

        q, k, v = (b.op("MatMul", ["input", constant(f"w{n}", 8, 8)], n) for n in "qkv")
        if scaled:
            q = b.op("Mul", [q, b.constant("root", np.float32(8**-0.5))], "scaled")
        x = b.op("MatMul", [q, b.op("Transpose", [k], "kt", perm=[0, 2, 1])], "scores")
        x = b.op("MatMul", [b.op("Softmax", [x], "soft", axis=-1), v], "mixed")
        return b.artifact(b.linear(b.op("Flatten", [x], "flat"), "last", 48, 5))

    return make


def executed(made, tmp_path):
    """Returns the operators that onnxruntime runs."""
    import onnxruntime as ort

    options, file = ort.SessionOptions(), tmp_path / "optimized.onnx"
    options.optimized_model_filepath, options.log_severity_level = str(file), 3
    ort.InferenceSession(made.onnx_bytes, options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(file).graph.node]


@pytest.mark.parametrize("scaled", [False, True])
def test_they_stay_float_by_default_and_are_named(attention, scaled, tmp_path):
    artifact, stage, c = attention(scaled), QuantizeStage(), context()
    made = stage.apply(artifact, {}, c)
    operators = executed(made, tmp_path)
    assert operators.count("MatMul") + operators.count("FusedMatMul") == 2
    wanted = "Left float: node_scores, node_mixed: both operands are activations, which quantize.activation_matmuls=true quantizes"
    assert wanted in stage.remarks(artifact, {}, c)
    assert wanted in stage.remarks(artifact, {"activation_matmuls": (False,)}, c)
    assert not any(
        "node_scores" in n for n in stage.remarks(artifact, {"activation_matmuls": (False, True)}, c)
    )


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"activation_type": "signed"},
        {"granularity": "tensor", "scheme": "symmetric"},
        {"format": "qoperator"},
        {"format": "qoperator", "activation_type": "signed"},
    ],
)
def test_they_are_integer_when_asked_for(attention, run, scaled, more, tmp_path):
    artifact = attention(scaled)
    made = QuantizeStage().apply(artifact, {**ASKED, **more}, context())
    operators = executed(made, tmp_path)
    n_layers = 0 if more == {"activation_type": "signed"} else 3  # x86 has no such kernel for signed weights
    assert sum(op in ("MatMulIntegerToFloat", "QLinearMatMul") for op in operators) == n_layers + 2
    inputs = noise_split(SHAPE, 32).inputs
    wanted, got = run(artifact, inputs), run(made, inputs, optimize="format" in more)
    assert np.sqrt(np.mean((got - wanted) ** 2) / np.mean(wanted**2)) < 0.35


@pytest.mark.parametrize(("activation_type", "zero"), [("unsigned", 0), ("signed", -128)])
def test_the_output_of_a_softmax_has_a_fixed_range(attention, activation_type, zero):
    made = QuantizeStage().apply(attention(), {**ASKED, "activation_type": activation_type}, context())
    kept = {i.name: numpy_helper.to_array(i) for i in made.proto().graph.initializer}
    assert kept["soft_scale"] == np.float32(1 / 255)
    assert kept["soft_zero_point"] == zero


@pytest.mark.parametrize("more", [{"activation_bits": 16}, {"weight_bits": 4}, {"keep_float": ("w*",)}])
def test_they_go_with_other_knobs(attention, run, more):
    artifact = attention()
    made = QuantizeStage().apply(artifact, {**ASKED, **more}, context())
    inputs = noise_split(SHAPE, 32).inputs
    wanted, got = run(artifact, inputs), run(made, inputs)
    assert np.sqrt(np.mean((got - wanted) ** 2) / np.mean(wanted**2)) < 0.5


def test_the_knob_is_part_of_a_candidate_only_where_it_matters(attention, small):
    artifact, stage, c = attention(), QuantizeStage(), context()
    plain, asked = (stage.canonical(artifact, values, c) for values in ({}, ASKED))
    assert plain != asked
    assert stage.structure(artifact, plain, c) != stage.structure(artifact, asked, c)
    assert stage.apply(artifact, plain, c).onnx_bytes != stage.apply(artifact, asked, c).onnx_bytes
    found = stage.estimates(artifact, [plain, asked], c)["activations_sqnr_db"]
    assert found[1] < found[0]
    domains = {"activation_matmuls": (False, True)}
    assert stage.empty_knobs(artifact, domains, c) == {}
    other = StageContext(noise_split((3, 8, 8), 32), Cache())
    assert stage.canonical(small, ASKED, other) == stage.canonical(small, {}, other)
    assert stage.empty_knobs(small, domains, other) == {
        "activation_matmuls": "the network has no MatMul of two activations"
    }
    with pytest.raises(StageError, match="activation_matmuls"):
        stage.canonical(artifact, {"activation_matmuls": "some"}, c)


def test_a_network_of_float_layers_stays_as_it_is(attention):
    artifact, stage, c = attention(), QuantizeStage(), context()
    chosen = stage.canonical(artifact, {**ASKED, "keep_float": ("*",)}, c)
    assert stage.apply(artifact, chosen, c).onnx_bytes == artifact.onnx_bytes


class TestConformance(StageConformance):
    @pytest.fixture
    def stage(self):
        return QuantizeStage()

    @pytest.fixture
    def artifact(self, attention):
        return attention()

    @pytest.fixture
    def context(self):
        return context()

    @pytest.fixture
    def value_sets(self, format_sets):
        return [
            *format_sets,
            ASKED,
            {"clipping": "percentile"},
            {"weight_bits": 3, "rounding": "adaround", "rounding_steps": 20},
        ]

    def alternatives(self, knob):
        # one step of tuning does not help examples that are held out, and is undone
        return (20,) if knob.name == "network_steps" else super().alternatives(knob)
