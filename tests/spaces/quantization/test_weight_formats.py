"""Weight formats and precisions as knobs of the quantize stage."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from spaces.errors import ConfigError, StageError
from spaces.quantization.formats.gwq import Gwq
from spaces.quantization.formats.methods import FORMATS
from spaces.quantization.formats.shift_add import ShiftAdd
from spaces.quantization.formats.stored import packed_bytes, simulated_layers, stored_weights
from spaces.quantization.formats.uniform import Uniform
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import Artifact
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext

WEIGHTS_ONLY = {"precision": "weights_only", "weight_bits": 3}
WEIGHTS = tuple(f"{name}.weight" for name in ("stem", "expand", "depthwise", "project", "classifier"))


@pytest.fixture
def apply(small, context):
    stage = QuantizeStage()
    return lambda **values: stage.apply(small, values, context)


def floats(artifact: Artifact) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in artifact.proto().graph.initializer}


@pytest.mark.parametrize("name", FORMATS)
def test_files_compute_with_the_decoded_weights(small, apply, run, name):
    """Of each format: the outputs are those of the float file with the weights that the blobs decode to."""
    made = apply(**WEIGHTS_ONLY, weight_format=name, group_size=8 if name == "uniform" else 0)
    known, decoded = stored_weights(made.proto()), small.proto()
    assert tuple(known) == tuple(sorted(WEIGHTS))
    assert {w.format for w in known.values()} == {name}
    for tensor in decoded.graph.initializer:
        if tensor.name in known:
            form = type(FORMATS[name])(**known[tensor.name].options)
            packed = form.encode(numpy_helper.to_array(tensor))
            assert known[tensor.name].packed_bytes == packed.packed_bytes
            tensor.CopyFrom(numpy_helper.from_array(packed.decoded(), tensor.name))
    x = small.input.noise(5)
    expected = run(Artifact.onnx(decoded, small.input), x)
    np.testing.assert_allclose(run(made, x, optimize=False), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["gwq", "shift_add", "codes"])
def test_formats_without_an_onnx_type_are_said_to_be_simulated(apply, name):
    made = apply(**WEIGHTS_ONLY, weight_format=name)
    assert simulated_layers(made.onnx_bytes) == dict.fromkeys(WEIGHTS, f"weight_format={name}")
    assert f"weight_format={name} has no kernel" in made.notes["quantize"]["notes"][0]


def test_formats_with_one_are_not(apply):
    for name in ("ternary", "fixed_point"):
        made = apply(**WEIGHTS_ONLY, weight_format=name)
        assert simulated_layers(made.onnx_bytes) == {}
        (note,) = made.notes["quantize"]["notes"]
        assert note.startswith(f"weight_format={name}: the file stores integers")


def test_packed_bytes_are_those_of_the_blobs(small, apply):
    made = apply(**WEIGHTS_ONLY, weight_format="gwq", outlier_share=0.25, group_size=16)
    weights = {name: w for name, w in floats(small).items() if name in WEIGHTS}
    blobs = sum(Gwq(3, 16, 0.25).n_bytes(w.shape) for w in weights.values())
    assert (
        packed_bytes(made.onnx_bytes)
        == len(made.onnx_bytes) - sum(w.nbytes for w in weights.values()) + blobs
    )


def test_ends_keep_integers_of_8_bits(apply):
    made = apply(**WEIGHTS_ONLY, weight_format="gwq", ends_8_bit=True)
    assert set(simulated_layers(made.onnx_bytes)) == set(WEIGHTS[1:4])
    assert floats(made)["stem.weight_quantized"].dtype == np.int8


def test_activations_are_rounded_beside_a_format(apply, small, run):
    x = small.input.noise(50)
    expected, errors = run(small, x), []
    for bits in (4, 8, 16):
        made = apply(weight_format="gwq", weight_bits=8, activation_bits=bits)
        errors.append(np.abs(run(made, x) - expected).mean())
        assert f"uint{max(bits, 8)}" in {str(a.dtype) for a in floats(made).values()}
    assert errors == sorted(errors, reverse=True)
    assert set(simulated_layers(apply(activation_bits=4).onnx_bytes).values()) == {"activation_bits=4"}


def test_what_inputs_say_lowers_the_error_of_outputs(build, run):
    b = build((32,), seed=3)
    artifact = b.artifact(b.op("MatMul", ["input", b.weight("w", 32, 24)], "out"))
    rows = np.random.default_rng(0).standard_normal((256, 32)) * np.linspace(0.05, 4, 32)
    context = StageContext(ArraySplit(rows.astype(np.float32), np.zeros(256, np.int64)), Cache())
    stage, x = QuantizeStage(), rows.astype(np.float32)
    for name, better in (
        ("shift_add", {"weight_importance": "inputs"}),
        ("codes", {"weight_importance": "inputs"}),
        ("codes", {"code_tuning_steps": 5}),
    ):
        values = {**WEIGHTS_ONLY, "weight_format": name, "code_bits": 4}
        made = [stage.apply(artifact, {**values, **more}, context) for more in ({}, better)]
        assert packed_bytes(made[0].onnx_bytes) - len(made[0].onnx_bytes) == (
            packed_bytes(made[1].onnx_bytes) - len(made[1].onnx_bytes)
        )
        equal, weighted = (np.square(run(m, x) - run(artifact, x)).mean() for m in made)
        assert weighted < equal


def test_a_share_of_the_weights_gets_one_bit_less(apply):
    values = {"weight_format": "shift_add", "precision": "weights_only", "weight_bits": 4}
    bits = [
        {w.options["bits"] for w in stored_weights(apply(**values, narrow_share=share).proto()).values()}
        for share in (0.0, 0.5, 1.0)
    ]
    assert bits == [{4}, {3, 4}, {3}]


def test_only_weights(small, apply, run, context):
    """Without calibration, and with activations that stay float."""
    made = QuantizeStage().apply(small, {"precision": "weights_only"}, StageContext(None, Cache()))
    assert made.digest == apply(precision="weights_only").digest
    assert not [node for node in made.proto().graph.node if node.op_type == "QuantizeLinear"]
    x = small.input.noise(5)
    np.testing.assert_allclose(run(made, x), run(small, x), atol=0.02 * np.abs(run(small, x)).max())
    learned = apply(precision="weights_only", weight_bits=3, rounding="adaround", rounding_steps=30)
    assert learned.digest != apply(precision="weights_only", weight_bits=3).digest


def test_float16(small, apply, run):
    made = apply(precision="float16", keep_float=("stem*",))
    types = {i.name: i.data_type for i in made.proto().graph.initializer}
    kinds = [types[name] for name in WEIGHTS]
    assert kinds == [TensorProto.FLOAT, *[TensorProto.FLOAT16] * 4]
    x = small.input.noise(5)
    np.testing.assert_allclose(run(made, x), run(small, x), atol=0.01 * np.abs(run(small, x)).max())


def test_dynamic(small, apply, run):
    made = apply(precision="dynamic", mixed_precision=True)
    operators = [node.op_type for node in made.proto().graph.node]
    assert (operators.count("ConvInteger"), operators.count("Conv"), operators.count("MatMulInteger")) == (
        3,
        1,
        0,
    )
    x = small.input.noise(5)
    np.testing.assert_allclose(run(made, x), run(small, x), atol=0.1 * np.abs(run(small, x)).max())


@pytest.mark.parametrize("rounding", ["adaround", "brecq"])
def test_no_steps_of_learned_rounding_are_the_nearest(apply, rounding):
    values = {"weight_bits": 3, "clipping": "percentile", "activation_bits": 4, "bias_correction": True}
    learned = apply(**values, rounding=rounding, rounding_steps=0)
    assert learned.onnx_bytes == apply(**values, rounding="nearest").onnx_bytes


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"outlier_share": 0.1}, {}),
        ({"weight_format": "ternary", "weight_bits": 3}, {"weight_format": "ternary"}),
        (
            {"weight_format": "fixed_point", "group_size": 8, "granularity": "tensor"},
            {"weight_format": "fixed_point"},
        ),
        (
            {"weight_format": "gwq", "group_size": 8, "granularity": "tensor"},
            {"weight_format": "gwq", "group_size": 8},
        ),
        ({"precision": "weights_only", "activation_bits": 4}, {"precision": "weights_only"}),
        ({"precision": "float16", "scheme": "symmetric"}, {"precision": "float16"}),
        ({"rounding": "adaround", "rounding_steps": 0}, {}),
    ],
)
def test_values_without_effect(small, context, one, other):
    stage = QuantizeStage()
    assert stage.canonical(small, one, context) == stage.canonical(small, other, context)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight_format": "gqw"}, r"weight_format must be one of \['uniform', 'gwq'.*not 'gqw'"),
        (
            {"weight_format": "gwq", "group_size": 1000},
            r"group_size=1000 is more than the inputs of any channel, at most 27",
        ),
        ({"weight_format": "gwq", "group_size": -1}, r"group_size must lie between 0"),
        (
            {"weight_format": "gwq", "format": "qoperator"},
            r"weight_format=gwq: operators have no such weights",
        ),
        (
            {"weight_format": "codes", "rounding": "gptq"},
            r"weight_format=codes: rounding=gptq .* set rounding=nearest",
        ),
        (
            {"group_size": 4, "scheme": "symmetric_power2"},
            r"group_size=4: scales of groups are no powers of two",
        ),
        ({"weight_format": "gwq", "weight_bits": 9}, r"weight_bits must be one of"),
        ({"weight_format": "codes", "code_bits": 13}, r"code_bits must lie between 2 and 12"),
        (
            {"precision": "dynamic", "weight_bits": 4},
            r"precision=dynamic has 8-bit weights: weight_bits must be 8",
        ),
        (
            {"precision": "float16", "weight_format": "gwq"},
            r"precision=float16 .* weight_format must be uniform, not gwq",
        ),
        ({"precision": "weights_only", "format": "qoperator"}, r"precision must be static, not weights_only"),
        (
            {"weight_format": "shift_add", "narrow_share": 0.5, "weight_bits": {WEIGHTS[0]: 3}},
            r"narrow_share needs one",
        ),
    ],
)
def test_what_cannot_be_built_is_refused(small, context, values, message):
    with pytest.raises(StageError, match=message):
        QuantizeStage().canonical(small, values, context)


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ({"group_size": (0, 512)}, r"group_size=512 is more than"),
        ({"precision": ("dynamic",), "weight_bits": (4,)}, r"precision=dynamic needs weight_bits=8"),
        (
            {"weight_format": ("wide",), "weight_bits": (4, 8)},
            r"weight_format=wide: wide.bits must be one of \(2,\)",
        ),
        ({"weight_format": ("gwq",), "keep_float": (("conv*",),)}, r"Unknown layer pattern 'conv\*'"),
    ],
)
def test_a_space_is_refused_before_the_search(small, context, domains, message):
    with pytest.raises(StageError, match=message):
        QuantizeStage(formats=[Wide()]).check(small, domains, context)


def test_options_that_no_format_of_a_space_takes(small, context):
    domains = {"weight_format": ("gwq", "ternary"), "scale_terms": (2, 3), "outlier_share": (0.1, 0.2)}
    empty = QuantizeStage().empty_knobs(small, domains, context)
    assert empty == {"scale_terms": "only weight_format=shift_add uses it"}


@dataclass(frozen=True)
class Wide(Uniform):
    """A format of one's own."""

    name: ClassVar[str] = "wide"
    bits: int = 2

    def __post_init__(self):
        if self.bits != 2:
            raise ConfigError(f"wide.bits must be one of (2,), but is {self.bits}")


def test_formats_of_ones_own(small, context):
    stage = QuantizeStage(formats=[Wide(group=4)])
    made = stage.apply(small, {"weight_format": "wide", "weight_bits": 2, "group_size": 4}, context)
    assert {w.format for w in stored_weights(made.proto()).values()} == {"wide"}
    assert stage.config() != QuantizeStage().config() != QuantizeStage(formats=[Wide()]).config()
    with pytest.raises(StageError, match="weight_format must be one of"):
        QuantizeStage().canonical(small, {"weight_format": "wide"}, context)


def test_lstm_weights_have_formats(build, context):
    b = build((5, 4))
    b.op("Transpose", ["input"], "time", perm=[1, 0, 2])
    w, r = (
        b.constant("w", b.rng.standard_normal((1, 24, 4)).astype(np.float32)),
        b.constant("r", b.rng.standard_normal((1, 24, 6)).astype(np.float32)),
    )
    b.op("LSTM", ["time", w, r], "hidden", hidden_size=6)
    artifact = b.artifact("hidden")
    for name in ("ternary", "shift_add"):
        values = {**WEIGHTS_ONLY, "weight_format": name, "granularity": "channel"}
        made = QuantizeStage().apply(artifact, values, StageContext(None, Cache()))
        assert set(stored_weights(made.proto())) == {"w", "r"}


def test_shift_add_is_packed_once(apply, monkeypatch):
    calls = []
    real = ShiftAdd.encode
    monkeypatch.setattr(ShiftAdd, "encode", lambda self, *args: calls.append(1) or real(self, *args))
    for activations in (8, 16):
        apply(weight_format="shift_add", weight_bits=3, activation_bits=activations)
    assert len(calls) == len(WEIGHTS)


def test_the_study_says_which_values_are_simulated(small, context):
    domains = {"weight_format": ("uniform", "gwq", "ternary", "codes"), "activation_bits": (4, 8)}
    weights, activations = QuantizeStage().remarks(small, domains, context)[-2:]
    assert weights.startswith("Simulated: weight_format=gwq, codes: the file computes")
    assert activations.startswith("Simulated: activation_bits=4: ")
    assert not [r for r in QuantizeStage().remarks(small, {}, context) if "Simulated" in r]
