"""The quantize stage as a whole."""

import itertools
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from spaces.errors import StageError
from spaces.quantization.calibration.unfit import N_EXAMPLES
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import StageConformance, noise_split

LEARNED = {"weight_bits": 3, "rounding": "adaround", "rounding_steps": 20}
SCHEMES = ("asymmetric", "symmetric", "symmetric_uint8", "symmetric_power2")


def sqnr_db(wanted: np.ndarray, got: np.ndarray) -> float:
    noise = np.square(wanted - got, dtype=np.float64).sum()
    return float(10 * np.log10(np.square(wanted, dtype=np.float64).sum() / noise)) if noise else np.inf


class TestConformance(StageConformance):
    @pytest.fixture
    def stage(self):
        return QuantizeStage()

    @pytest.fixture
    def artifact(self, small):
        return small

    @pytest.fixture
    def value_sets(self, format_sets):
        return [
            *format_sets,
            {"clipping": "percentile", "weight_bits": 4, "granularity": "tensor"},
            {"format": "qoperator", "scheme": "symmetric"},
            {"weight_bits": {"stem.weight": 4, "classifier.weight": 8}, "bias_correction": True},
            LEARNED,
        ]


class TestConformanceOfTheEmptiestNetwork(StageConformance):
    @pytest.fixture
    def stage(self):
        return QuantizeStage()

    @pytest.fixture
    def artifact(self, lonely):
        return lonely

    @pytest.fixture
    def value_sets(self, format_sets):
        return [*format_sets, {"clipping": "percentile"}, LEARNED | {"weight_bits": 2, "rounding_steps": 300}]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_eight_bits_are_close_to_float(small, context, noise, run, scheme, form, integer_kernels_saturate):
    if integer_kernels_saturate and form == "qoperator":
        pytest.skip("this processor's 8-bit kernels saturate")
    result = QuantizeStage().apply(small, {"scheme": scheme, "format": form}, context)
    wanted, got = run(small, noise.inputs), run(result, noise.inputs, optimize=not integer_kernels_saturate)
    assert sqnr_db(wanted, got) > 18
    # The integer kernels round as the reference does, with occasional differences of one step.
    assert sqnr_db(got, run(result, noise.inputs, optimize=False)) > 25


def test_every_quantune_configuration_builds_and_runs(small, context, noise, run):
    stage, wanted, schemes = QuantizeStage(), run(small, noise.inputs), {}
    for images, scheme, clipping, granularity, mixed in itertools.product(
        (1, 16, 64), SCHEMES, ("max", "kl"), ("tensor", "channel"), (False, True)
    ):
        values = {
            "calibration_images": images,
            "scheme": scheme,
            "clipping": clipping,
            "granularity": granularity,
            "mixed_precision": mixed,
        }
        result = stage.apply(small, values, context)
        assert sqnr_db(wanted, run(result, noise.inputs)) > 5
        schemes.setdefault(result.digest, []).append(scheme)
    # Power-of-two scales are so coarse that different ranges can give equal scales; others differ.
    assert all(set(found) == {"symmetric_power2"} for found in schemes.values() if len(found) > 1)
    assert len(schemes) > 72


def test_more_bits_are_closer_to_float(small, context, noise, run):
    stage, wanted = QuantizeStage(), run(small, noise.inputs)

    def quality(**values):
        return sqnr_db(wanted, run(stage.apply(small, values, context), noise.inputs))

    assert quality(weight_bits=4) < quality() < quality(activation_bits=16)
    assert quality(weight_bits={"stem.weight": 8, "expand.weight": 4}) < quality()
    assert quality(weight_bits=4, granularity="tensor") < quality(weight_bits=4)
    assert quality(reduce_range=True) < quality()
    assert quality() < quality(keep_float=("stem*", "expand*", "depth*")) < quality(keep_float=("*",))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("stored", ["signed", "unsigned"])
def test_weights_are_stored_as_integers(small, context, bits, stored):
    values = {"weight_bits": bits, "weight_type": stored, "keep_float": ("project.weight",)}
    proto = QuantizeStage().apply(small, values, context).proto()
    onnx.checker.check_model(proto, full_check=True)
    kinds = {i.name: i.data_type for i in proto.graph.initializer}
    wanted = getattr(TensorProto, f"{'U' if stored == 'unsigned' else ''}INT{bits}")
    for layer in ("stem", "expand", "depthwise", "classifier"):
        assert kinds[f"{layer}.weight_quantized"] == wanted
        assert kinds[f"{layer}.bias_quantized"] == TensorProto.INT32
        assert f"{layer}.weight" not in kinds
    assert kinds["project.weight"] == TensorProto.FLOAT


def test_four_bits_take_half_the_bytes(build, context):
    b = build((3, 8, 8))
    artifact = b.artifact(b.conv(b.conv("input", "a", 3, 64), "b", 64, 64))
    sizes = {
        bits: len(QuantizeStage().apply(artifact, {"weight_bits": bits}, context).onnx_bytes)
        for bits in (4, 8)
    }
    assert 0.45 < (sizes[4] - 5000) / (sizes[8] - 5000) < 0.6
    assert sizes[8] < len(artifact.onnx_bytes) / 3


def test_the_graph_has_no_unnecessary_quantization(small, context):
    ops = [n.op_type for n in QuantizeStage().apply(small, {}, context).proto().graph.node]
    assert "Relu" not in ops  # folded into the range that begins at 0
    # One Quantize for the input and each of stem, expand, depthwise, project, sum, pool, flat; none for the output.
    assert ops.count("QuantizeLinear") == 8
    ops = [
        n.op_type for n in QuantizeStage().apply(small, {"format": "qoperator"}, context).proto().graph.node
    ]
    assert (ops.count("QuantizeLinear"), ops.count("DequantizeLinear")) == (1, 0)


def test_nothing_is_quantized_between_float_layers(small, context):
    values = {"keep_float": ("stem*", "expand*", "depthwise*", "project*")}
    ops = [n.op_type for n in QuantizeStage().apply(small, values, context).proto().graph.node]
    assert ops.count("Relu") == 4
    assert ops.count("QuantizeLinear") == 1  # the classifier's input


def test_all_layers_kept_float_is_the_float_model(small, context):
    result = QuantizeStage().apply(small, {"keep_float": ("*",), "cross_layer_equalization": True}, context)
    assert result.digest == small.digest
    assert result.provenance[-1].stage == "quantize"


def test_the_file_is_the_same_in_any_process(small, context, tmp_path):
    model, wanted = tmp_path / "small.onnx", []
    model.write_bytes(small.onnx_bytes)
    settings = [
        {},
        {"format": "qoperator", "clipping": "kl"},
        {"weight_bits": 4, "cross_layer_equalization": True},
    ]
    wanted = [QuantizeStage().apply(small, values, context).digest for values in settings]
    program = f"""
from pathlib import Path
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.cache import Cache
from spaces.quantization.calibration.unfit import N_EXAMPLES
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.stage import StageContext
from spaces.stages.testing import noise_split
artifact = Artifact.onnx(Path({str(model)!r}).read_bytes(), InputSpec((3, 8, 8)))
context = StageContext(noise_split((3, 8, 8), 64), Cache())
print(*[QuantizeStage().apply(artifact, values, context).digest for values in {settings!r}])
"""
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[3],
        )
        assert done.stdout.split() == wanted


def test_candidates_share_statistics(small, noise, tmp_path):
    class Counting:
        def __init__(self):
            self.calls, self.digest = 0, noise.digest

        def __len__(self):
            return len(noise)

        def batches(self, batch_size, limit=None):
            self.calls += 1
            return noise.batches(batch_size, limit)

    split, cache = Counting(), Cache(tmp_path)
    for scheme, clipping, bits in itertools.product(SCHEMES, ("max", "kl", "mse", "percentile"), (4, 8)):
        values = {"scheme": scheme, "clipping": clipping, "weight_bits": bits}
        QuantizeStage().apply(small, values, StageContext(split, cache))
    assert split.calls == 2  # what stays float, then one pass
    QuantizeStage().apply(small, {"clipping": "kl"}, StageContext(split, Cache(tmp_path)))
    assert split.calls == 2  # another process reads them from the cache folder


def test_a_second_candidate_is_fast(small, context):
    from time import perf_counter

    stage = QuantizeStage()
    stage.apply(small, {}, context)
    start = perf_counter()
    stage.apply(small, {"weight_bits": 4}, context)
    assert perf_counter() - start < 1.0  # 0.02 s on an idle core


def test_canonical_is_cheap(small, context):
    from time import perf_counter

    stage = QuantizeStage()
    stage.canonical(small, {}, context)
    start = perf_counter()
    for _ in range(100):
        stage.canonical(small, {"keep_float": ("st*",), "weight_bits": {"stem.weight": 4}}, context)
    assert perf_counter() - start < 1.0  # 0.01 s on an idle core


def test_pickling_leaves_out_caches(small, context):
    stage = QuantizeStage()
    stage.canonical(small, {}, context)
    assert len(pickle.dumps(stage)) < 8_000


class TestErrors:
    def test_no_calibration_data(self, small):
        with pytest.raises(StageError, match="calibration examples"):
            QuantizeStage().apply(small, {}, StageContext(None, Cache()))

    def test_calibration_data_that_does_not_fit(self, small):
        with pytest.raises(StageError, match=r"shape \(3, 9, 9\), but .* 'input' has \(3, 8, 8\)"):
            QuantizeStage().apply(small, {}, StageContext(noise_split((3, 9, 9)), Cache()))

    def test_quantized_already(self, small, context):
        result = QuantizeStage().apply(small, {}, context)
        with pytest.raises(StageError, match="quantized already"):
            QuantizeStage().apply(result, {}, context)

    def test_no_layers(self, build, context):
        b = build((3, 8, 8))
        with pytest.raises(StageError, match="no Conv, ConvTranspose, Gemm or MatMul"):
            QuantizeStage().apply(b.artifact(b.op("Relu", ["input"], "out")), {}, context)

    @pytest.mark.parametrize(
        "more", [{}, {"clipping": "mse", "bias_correction": True}, {"format": "qoperator"}]
    )
    def test_activations_that_are_not_finite_on_later_examples_stay_float(self, build, run, more):
        b = build((3, 8, 8))
        x = b.conv("input", "stem", 3, 4, bias=False)
        x = b.op("Mul", [x, b.op("Div", [x, x], "inf")], "bad")
        artifact = b.artifact(b.conv(x, "last", 4, 2))
        split = noise_split((3, 8, 8))
        split.inputs[N_EXAMPLES:] = 0  # not seen when it is decided which nodes stay float
        stage, context = QuantizeStage(), StageContext(split, Cache())
        chosen = stage.canonical(artifact, more, context)
        made = stage.apply(artifact, chosen, context)
        assert made.notes["quantize"]["notes"] == [
            "Left float: node_bad, node_last_out: its input is not finite"
        ]
        names = {i.name for i in made.proto().graph.initializer}
        assert {"stem.weight_quantized", "last.weight"} <= names
        inputs = split.inputs[:N_EXAMPLES]
        assert run(made, inputs).shape == run(artifact, inputs).shape
        found = stage.estimates(artifact, [chosen], context)
        assert np.isfinite(found["propagated_sqnr_db"]).all()
        few = stage.apply(artifact, {**more, "calibration_images": N_EXAMPLES}, context)
        assert "last.weight_quantized" in {i.name for i in few.proto().graph.initializer}
        assert not few.notes

    def test_activations_that_are_never_finite_stay_float(self, build):
        b = build((3, 8, 8))
        x = b.conv("input", "stem", 3, 4)
        bad = b.op("Mul", [x, b.op("Div", [x, b.op("Sub", [x, x], "none")], "inf")], "bad")
        artifact = b.artifact(b.conv(x, "last", 4, 2))
        context = StageContext(noise_split((3, 8, 8)), Cache())
        QuantizeStage().apply(artifact, {}, context)
        assert f"Left float: node_{bad}: its input is not finite" in QuantizeStage().remarks(
            artifact, {}, context
        )


REAL = Path(__file__).parents[3].parent / "shared/data"


@pytest.mark.slow
def test_accuracy_on_cifar10(integer_kernels_saturate):
    """ResNet-8 of MLPerf Tiny: 87.19 % in float, on all 10,000 test images."""
    from spaces.models.onnx.ort_session import ort_session
    from spaces.stages.array_split import ArraySplit

    model, data = REAL / "mlperf_tiny/pretrainedResnet.onnx", REAL / "cifar10"
    if not (model.exists() and data.exists()):
        pytest.skip("the MLPerf Tiny networks or CIFAR-10 are absent")
    with np.load(data / "train_20k.npz") as train, np.load(data / "test.npz") as test:
        calibration = ArraySplit(train["x"][:256].astype(np.float32), train["y"][:256].astype(np.int64))
        inputs, labels = test["x"][:2000].astype(np.float32), test["y"][:2000]
    proto = onnx.load(model)
    artifact = Artifact.onnx(proto, InputSpec((32, 32, 3), proto.graph.input[0].name))
    context, stage = StageContext(calibration, Cache()), QuantizeStage()

    def accuracy(result):
        session = ort_session(result.onnx_bytes, threads=0, optimize=not integer_kernels_saturate)
        right = [
            session.run(None, {artifact.input.name: part})[0].argmax(axis=1) for part in np.split(inputs, 20)
        ]
        return 100 * float((np.concatenate(right) == labels).mean())

    exact = accuracy(artifact)
    # The standard error of a paired difference at 2000 images is about 0.4 points.
    assert accuracy(stage.apply(artifact, {}, context)) > exact - 1.5
    assert accuracy(stage.apply(artifact, {"clipping": "kl", "scheme": "symmetric"}, context)) > exact - 2.5
    assert accuracy(stage.apply(artifact, {"weight_bits": 4, "bias_correction": True}, context)) > exact - 8
    names = {i.name for i in stage.apply(artifact, {}, context).proto().graph.initializer}
    floats = {i.name for i in proto.graph.initializer if numpy_helper.to_array(i).ndim == 4}
    assert {f"{name}_quantized" for name in floats} <= names


def test_the_quickest_values_have_the_same_structure_without_learned_rounding(small, context):
    stage = QuantizeStage()
    chosen = stage.canonical(small, stage.defaults() | {"rounding": "adaround", "weight_bits": 4}, context)
    quick = stage.quickest(chosen)
    assert quick["rounding"] == "nearest"
    assert stage.structure(small, quick, context) == stage.structure(small, chosen, context)
    assert stage.canonical(small, quick, context)["weight_bits"] == chosen["weight_bits"]
