"""A file made from a template equals the file made by onnxruntime's tool."""

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spaces.errors import StageError
from spaces.quantization.qdq import templates as templates
from spaces.quantization.qdq.template import build_template, tool_model
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import noise_split

SPLIT = noise_split((3, 8, 8), 12)
CONTEXT = StageContext(SPLIT, Cache())


class _Tool:
    """Runs the tool for every candidate."""

    @staticmethod
    def model(source, plan, settings, corrected, rounded):
        return tool_model(source.with_weights(rounded or {}), plan, settings, corrected)


def reference(artifact, values, context):
    """The file that the tool makes of this candidate, with empty caches."""
    stage = QuantizeStage()
    stage._templates = _Tool()
    return stage.apply(artifact, values, context)


def residual(b):
    """ReLU and Clip to fold, a depthwise layer, a layer without bias, a skip, pooling, a Gemm."""
    bounds = [b.constant("low", np.float32(0)), b.constant("high", np.float32(6))]
    x = b.op("Relu", [b.conv("input", "stem", 3, 8)], "stem_relu")
    y = b.op("Clip", [b.conv(x, "expand", 8, 16, 1), *bounds], "expand_clip")
    y = b.op("Clip", [b.conv(y, "depthwise", 16, 16, group=16), *bounds], "depthwise_clip")
    y = b.conv(y, "project", 16, 8, 1, bias=False)
    y = b.op("Relu", [b.op("Add", [x, y], "sum")], "sum_relu")
    y = b.op("Flatten", [b.op("GlobalAveragePool", [y], "pool")], "flat")
    return b.artifact(b.linear(y, "classifier", 8, 5))


def transposed(b):
    """A ConvTranspose, a MatMul with its bias in an Add, and operators that move values."""
    x = b.op("MaxPool", [b.conv("input", "a", 3, 8)], "pooled", kernel_shape=[2, 2], strides=[2, 2])
    x = b.op("Concat", [b.op("LeakyRelu", [x], "leaky", alpha=0.1), x], "joined", axis=1)
    up = [b.weight("up.weight", 16, 4, 2, 2), b.bias("up.bias", 4)]
    x = b.op("Relu", [b.op("ConvTranspose", [x, *up], "up_out", strides=[2, 2])], "up_relu")
    x = b.op("Transpose", [x], "last", perm=[0, 2, 3, 1])
    x = b.op("MatMul", [x, b.weight("mix.weight", 4, 6)], "mixed")
    x = b.op("Relu", [b.op("Add", [x, b.bias("mix.bias", 6)], "mixed_bias")], "mixed_relu")
    x = b.op("ReduceMean", [x, b.constant("axes", np.array([1, 2]))], "mean", keepdims=0)
    return b.artifact(b.linear(x, "head", 6, 5))


def forked(b):
    """A ReLU whose input has another reader; a weight and a bias that two layers share."""
    x = b.conv("input", "a", 3, 3)
    y = b.op("Relu", [x], "relu")
    weight, bias = b.weight("shared.weight", 3, 3, 1, 1), b.bias("shared.bias", 3)
    y = b.op("Conv", [y, weight, bias], "once")
    z = b.op("Conv", [b.op("Add", [x, y], "sum"), weight, bias], "twice")
    return b.artifact(b.conv(z, "c", 3, 4))


def padded(b):
    """A Pad with its own constant, an old opset, a Gemm with factors, odd numbers of 4-bit weights."""
    x = b.op("Relu", [b.conv("input", "a", 3, 5, 1)], "a_relu")
    sizes, fill = b.constant("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1])), b.constant("fill", np.float32(0.5))
    x = b.op("Pad", [x, sizes, fill], "pad")
    x = b.op("Flatten", [b.op("GlobalAveragePool", [b.conv(x, "b", 5, 5)], "pool")], "flat")
    inputs = [x, b.weight("head.weight", 5, 3), b.bias("head.bias", 3)]
    return b.artifact(b.op("Gemm", inputs, "out", alpha=0.5, beta=3.0), opset=17)


NETWORKS = (residual, transposed, forked, padded)


def values_of(names):
    """Values of every knob."""
    bits = st.sampled_from((2, 3, 4, 6, 8))
    return st.fixed_dictionaries(
        {
            "calibration_images": st.sampled_from((1, 5, 12)),
            "scheme": st.sampled_from(("asymmetric", "symmetric", "symmetric_uint8", "symmetric_power2")),
            "clipping": st.sampled_from(("max", "kl", "percentile", "mse")),
            "percentile": st.sampled_from((99.0, 99.9)),
            "granularity": st.sampled_from(("tensor", "channel")),
            "mixed_precision": st.booleans(),
            "weight_bits": st.just(8) | bits | st.fixed_dictionaries(dict.fromkeys(names, bits)),
            "activation_bits": st.sampled_from((8, 8, 16)),
            "keep_float": st.just(()) | st.lists(st.sampled_from(names), max_size=2, unique=True).map(tuple),
            "bias_correction": st.booleans(),
            "cross_layer_equalization": st.booleans(),
            "activation_type": st.sampled_from(("unsigned", "signed")),
            "weight_type": st.sampled_from(("unsigned", "signed")),
            "format": st.sampled_from(("qdq", "qoperator")),
            "reduce_range": st.booleans(),
            "ends_8_bit": st.booleans(),
            "rounding": st.sampled_from(("nearest", "nearest", "gptq")),
        }
    )


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda network: network.__name__)
def case(request):
    """A network, and the stage that all its candidates go through."""
    return request.param, QuantizeStage()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_files_equal_the_tools(case, build, data):
    network, stage = case
    artifact = network(build((3, 8, 8)))
    names = sorted({layer.name for layer in stage._sources.metadata(artifact).network.layers})
    values = data.draw(values_of(names))
    if values["format"] == "qoperator":
        values |= {"weight_bits": 8, "activation_bits": 8}
    try:
        chosen = stage.canonical(artifact, values, CONTEXT)
    except StageError:
        return  # a combination that cannot run
    first, again = (stage.apply(artifact, chosen, CONTEXT) for _ in range(2))
    wanted = reference(artifact, chosen, CONTEXT)
    assert first.onnx_bytes == wanted.onnx_bytes
    assert again.digest == wanted.digest


@pytest.mark.parametrize("fill", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_constant_that_depends_on_the_grid_is_not_reused_for_other_grids(build, fill):
    """If a scale and a zero point change together, an integer can stay the same by chance."""
    b = build((3, 8, 8))
    x = b.op("Relu", [b.conv("input", "a", 3, 5, 1)], "a_relu")
    sizes = b.constant("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    x = b.op("Pad", [x, sizes, b.constant("fill", np.float32(fill))], "pad")
    artifact, stage = b.artifact(b.conv(x, "b", 5, 5), opset=17), QuantizeStage()
    chosen = stage.canonical(artifact, {"format": "qoperator", "clipping": "max"}, CONTEXT)
    assert (
        stage.apply(artifact, chosen, CONTEXT).onnx_bytes == reference(artifact, chosen, CONTEXT).onnx_bytes
    )


@pytest.fixture
def built(monkeypatch):
    """The results of `build_template`, in order."""
    found = []

    def build(*arguments):
        found.append(build_template(*arguments))
        return found[-1]

    monkeypatch.setattr(templates, "build_template", build)
    return found


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_only_a_quantized_pad_constant_has_no_template(build, built, network, form):
    artifact, stage = network(build((3, 8, 8))), QuantizeStage()
    for correction in (False, True):
        stage.apply(artifact, {"format": form, "bias_correction": correction}, CONTEXT)
    # The quantized constant of a Pad depends on the scale of the padded tensor.
    assert [s is None for s in built] == [network is padded and form == "qoperator"] * 2


def test_candidates_of_one_structure_share_a_template_and_a_size(small, context, built):
    stage, sizes = QuantizeStage(), set()
    for scheme, clipping, images, reduced in itertools.product(
        ("asymmetric", "symmetric_uint8"), ("max", "kl", "mse"), (1, 8), (False, True)
    ):
        values = {
            "scheme": scheme,
            "clipping": clipping,
            "calibration_images": images,
            "reduce_range": reduced,
        }
        sizes.add(len(stage.apply(small, values, context).onnx_bytes))
    assert len(built) == 1
    assert len(sizes) == 1
    for bits in (8, {"stem.weight": 4}, {"expand.weight": 4}):
        stage.apply(small, {"weight_bits": bits}, context)
    assert len(built) == 2  # without 4 bits, and with


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_equal_structures_have_equal_graphs(case, build, data):
    network, stage = case
    artifact = network(build((3, 8, 8)))
    names = sorted({layer.name for layer in stage._sources.metadata(artifact).network.layers})
    shapes = {}
    base = data.draw(values_of(names))
    for other in (
        base,
        *(base | {k: v for k, v in data.draw(values_of(names)).items() if k in NUMBERS} for _ in range(3)),
    ):
        try:
            chosen = stage.canonical(artifact, other, CONTEXT)
        except StageError:
            continue
        key = repr(sorted(stage.structure(artifact, chosen, CONTEXT).items()))
        shapes.setdefault(key, set()).add(outline(stage.apply(artifact, chosen, CONTEXT)))
    assert all(len(found) == 1 for found in shapes.values())


NUMBERS = (
    *("calibration_images", "scheme", "clipping", "percentile"),
    *("bias_correction", "cross_layer_equalization", "reduce_range"),
)


def outline(artifact):
    """Everything in a file except numbers."""
    proto = artifact.proto()
    for tensor in proto.graph.initializer:
        tensor.raw_data = bytes(len(tensor.raw_data))
        tensor.ClearField("float_data")
    return proto.SerializeToString(deterministic=True)


def test_structure_leaves_out_knobs_that_change_only_numbers(small, context):
    stage = QuantizeStage()

    def structure(**values):
        return stage.structure(small, stage.canonical(small, values, context), context)

    assert structure() == structure(clipping="kl") == structure(calibration_images=3)
    assert structure() == structure(scheme="symmetric_uint8") == structure(reduce_range=True)
    assert structure() == structure(cross_layer_equalization=True)  # no Clip becomes a ReLU
    assert structure() == structure(bias_correction=True)  # every layer has a bias
    assert structure() != structure(scheme="symmetric")
    assert structure(scheme="symmetric") == structure(scheme="symmetric_power2")
    for values in (
        {"granularity": "tensor"},
        {"weight_bits": 4},
        {"weight_bits": {"stem.weight": 4}},
        {"mixed_precision": True},
        {"keep_float": ("project*",)},
        {"format": "qoperator"},
        {"activation_type": "signed"},
        {"weight_type": "unsigned"},
        {"activation_bits": 16},
    ):
        assert structure() != structure(**values)


def test_structure_depends_on_what_the_network_lacks(build, context):
    artifact, stage = residual(build((3, 8, 8))), QuantizeStage()

    def structure(**values):
        return stage.structure(artifact, stage.canonical(artifact, values, context), context)

    assert structure() != structure(cross_layer_equalization=True)  # Clips become ReLUs
    assert structure() != structure(bias_correction=True)  # `project` gets a bias
    float_project = {"keep_float": ("project*",)}
    assert structure(**float_project) == structure(**float_project, bias_correction=True)


def test_structure_is_cheap(small, context):
    stage = QuantizeStage()
    values = stage.canonical(small, {"weight_bits": {"stem.weight": 4}}, context)
    start = time.perf_counter()
    for _ in range(200):
        stage.structure(small, values, context)
    assert time.perf_counter() - start < 0.5  # 0.003 s on an idle core


def test_a_huge_bias_is_left_to_the_tool(build, context):
    """With format=qoperator the tool rescales a weight whose bias, e.g. after correction, would overflow."""
    b = build((3, 8, 8))
    weight = b.constant("a.weight", np.full((2, 3, 1, 1), 1e-9, np.float32))
    bias = b.constant("a.bias", np.array([5.0, -3.0], np.float32))
    artifact = b.artifact(b.op("Conv", ["input", weight, bias], "out"))
    for values in ({"format": "qoperator"}, {"format": "qoperator", "bias_correction": True}, {}):
        found = QuantizeStage().apply(artifact, values, context)
        assert found.onnx_bytes == reference(artifact, values, context).onnx_bytes


def test_tensors_with_names_of_the_tool(build, context, built):
    """If a tensor has a name that the tool would give to a scale, no template is used."""
    b = build((3, 8, 8))
    weight, other = b.weight("w", 4, 3, 1, 1), b.weight("w_quantized", 4, 4, 1, 1)
    artifact = b.artifact(b.op("Conv", [b.op("Conv", ["input", weight], "mid"), other], "out"))
    values = {"keep_float": ("w_quantized",)}
    wanted = reference(artifact, values, context).onnx_bytes
    assert QuantizeStage().apply(artifact, values, context).onnx_bytes == wanted
    assert built == [None]


DATA = Path(__file__).parents[4].parent / "shared/data"
ZOO = {
    "resnet20": ("CifarResNetModel", {"depth": 20}, "resnet20-12fca82f.th", (3, 32, 32)),
    "mobilenet_v2": ("MobileNetV2Model", {}, "mobilenet_v2-b0353104.pth", (3, 224, 224)),
    "squeezenet": ("SqueezeNetModel", {}, "squeezenet_v1.1_fp16.pth", (3, 224, 224)),
}
FORMS = (
    {"scheme": "asymmetric"},
    {"scheme": "symmetric_power2", "granularity": "tensor", "mixed_precision": True},
    {"scheme": "symmetric", "format": "qoperator", "granularity": "tensor"},
    {"weight_bits": 4, "activation_type": "signed", "bias_correction": True},
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_files_equal_the_tools_for_the_zoo(name, built):
    from spaces.models.base import LoadContext
    from spaces.models.export import ExportStage
    from spaces.models.zoo import cifar_resnet, mobilenet_v2, squeezenet

    kind, arguments, file, shape = ZOO[name]
    if not (DATA / "weights" / file).exists():
        pytest.skip("the published checkpoints are absent")
    source = next(getattr(m, kind) for m in (cifar_resnet, mobilenet_v2, squeezenet) if hasattr(m, kind))
    model = source(checkpoint=str(DATA / "weights" / file), **arguments)
    context, stage = StageContext(noise_split(shape, 4), Cache()), QuantizeStage()
    artifact = ExportStage().apply(model.load(LoadContext(None, Path("unused"))), {}, context)
    for form, more in itertools.product(FORMS, ({}, {"clipping": "kl", "calibration_images": 2})):
        found = stage.apply(artifact, form | more, context)
        assert found.onnx_bytes == reference(artifact, form | more, context).onnx_bytes
    assert None not in built


def test_reloaded_onnx_files(small, context, tmp_path):
    """A model read back from a file gives the same result."""
    path = tmp_path / "small.onnx"
    path.write_bytes(small.onnx_bytes)
    again = Artifact.onnx(path.read_bytes(), InputSpec((3, 8, 8)))
    assert (
        QuantizeStage().apply(again, {}, context).digest == QuantizeStage().apply(small, {}, context).digest
    )
