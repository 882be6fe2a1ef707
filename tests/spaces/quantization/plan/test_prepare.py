import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from spaces.quantization.quantize import QuantizeStage
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import noise_split

SHAPE = (12,)
RNG = np.random.default_rng(0)


def weight(*shape):
    return (RNG.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def value(name, *shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def if_node(make_branch):
    branches = {f"{name}_branch": make_branch(name) for name in ("then", "else")}
    return helper.make_node("If", ["condition"], ["z"], **branches)


def gemm_branch(tensor):
    """Returns a function that builds a branch with a Gemm of the outer tensor and a weight of its own."""

    def build(name):
        node = helper.make_node("Gemm", [tensor, f"{name}_w"], [f"{name}_o"])
        stored = [numpy_helper.from_array(weight(16, 5), f"{name}_w")]
        return helper.make_graph([node], name, [], [value(f"{name}_o", "n", 5)], stored)

    return build


def shared_branch(name):
    """A branch that shares weight and bias with the layers of the main graph."""
    nodes = [
        helper.make_node("Sub", ["r", "b1"], [f"{name}_s"]),
        helper.make_node("Gemm", [f"{name}_s", "w2"], [f"{name}_o"]),
    ]
    return helper.make_graph(nodes, name, [], [value(f"{name}_o", "n", 5)])


def reshaping_branch(name):
    """A branch that needs integers of the main graph."""
    nodes = [
        helper.make_node("Reshape", ["r", "shape"], [f"{name}_s"]),
        helper.make_node("Gemm", [f"{name}_s", f"{name}_w"], [f"{name}_o"]),
    ]
    stored = [numpy_helper.from_array(weight(16, 5), f"{name}_w")]
    return helper.make_graph(nodes, name, [], [value(f"{name}_o", "n", 5)], stored)


def nested_branch(name):
    node = if_node(lambda inner: gemm_branch("r")(f"{name}_{inner}"))
    node.output[0] = f"{name}_o"
    return helper.make_graph([node], name, [], [value(f"{name}_o", "n", 5)])


def loop_node():
    nodes = [
        helper.make_node("Identity", ["go"], ["goes"]),
        helper.make_node("Gemm", ["r", "w3"], ["step"]),
        helper.make_node("Add", ["state", "step"], ["next"]),
    ]
    flags = [value(name, kind=TensorProto.BOOL) for name in ("go", "goes")]
    inputs = [value("i", kind=TensorProto.INT64), flags[0], value("state", "n", 5)]
    stored = [numpy_helper.from_array(weight(16, 5), "w3")]
    body = helper.make_graph(nodes, "body", inputs, [flags[1], value("next", "n", 5)], stored)
    return helper.make_node("Loop", ["rounds", "", "q"], ["z"], body=body)


def scan_node():
    nodes = [helper.make_node("Gemm", ["r", "w3"], ["step"]), helper.make_node("Mul", ["step", "row"], ["m"])]
    nodes.append(helper.make_node("Add", ["state", "m"], ["next"]))
    stored = [numpy_helper.from_array(weight(16, 5), "w3")]
    inputs = [value("state", "n", 5), value("row", 5)]
    body = helper.make_graph(nodes, "body", inputs, [value("next", "n", 5)], stored)
    return helper.make_node("Scan", ["q", "rows"], ["z"], body=body, num_scan_inputs=1)


CONTROL = {
    "relu": lambda: if_node(gemm_branch("r")),
    "before relu": lambda: if_node(gemm_branch("a")),
    "shared constants": lambda: if_node(shared_branch),
    "shapes": lambda: if_node(reshaping_branch),
    "nested": lambda: if_node(nested_branch),
    "loop": loop_node,
    "scan": scan_node,
}


def network(node):
    """Gemm, Relu, Gemm, and a node with subgraphs that read the Gemm's or the Relu's output."""
    nodes = [
        helper.make_node("Gemm", ["input", "w1", "b1"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Gemm", ["r", "w2"], ["q"], alpha=2.0),
        node,
        helper.make_node("Add", ["q", "z"], ["y"]),
    ]
    arrays = {
        "w1": weight(12, 16),
        "b1": weight(16),
        "w2": weight(16, 5),
        "rows": weight(3, 5),
        "rounds": np.array(3),
        "condition": np.array(True),
        "shape": np.array([-1, 16]),
    }
    stored = [numpy_helper.from_array(a, n) for n, a in arrays.items()]
    graph = helper.make_graph(nodes, "g", [value("input", "n", 12)], [value("y", "n", 5)], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return Artifact.onnx(model, InputSpec(SHAPE))


def relative_error(run, artifact, split, **values):
    context = StageContext(split, Cache())
    # Unsigned weights: signed ones saturate on some processors.
    quantized = QuantizeStage().apply(artifact, {"weight_type": "unsigned", **values}, context)
    wanted, got = run(artifact, split.inputs), run(quantized, split.inputs)
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("scheme", ["asymmetric", "symmetric"])
@pytest.mark.parametrize("control", CONTROL)
def test_what_subgraphs_read_stays_right(run, control, scheme, form):
    artifact = network(CONTROL[control]())
    split = noise_split(SHAPE, 64)
    knobs = {"cross_layer_equalization": True} if control == "nested" else {}
    assert relative_error(run, artifact, split, scheme=scheme, format=form, **knobs) < 0.06


@pytest.mark.parametrize("control", ["relu", "shapes", "loop"])
def test_noise_is_estimated_for_networks_with_subgraphs(control):
    artifact, stage = network(CONTROL[control]()), QuantizeStage()
    context = StageContext(noise_split(SHAPE, 64), Cache())
    chosen = stage.canonical(artifact, {}, context)
    assert 20 < stage.estimates(artifact, [chosen], context)["propagated_sqnr_db"][0] < 60


@pytest.mark.parametrize(
    ("op_type", "domain", "more"),
    [
        ("GroupNormalization", "", ("s", "s")),
        ("QuickGelu", "com.microsoft", ()),
        ("FusedGemm", "com.microsoft", ("w16",)),
        ("SkipLayerNormalization", "com.microsoft", ("a", "s")),
        ("Pad", "com.microsoft", ("pads",)),  # the tool takes it for ONNX's own
    ],
)
@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_operators_that_onnx_has_no_inference_for_stay_float(run, op_type, domain, more, form):
    attributes = {"num_groups": 2} if op_type == "GroupNormalization" else {}
    attributes |= {"activation": "Relu"} if op_type == "FusedGemm" else {}
    nodes = [
        helper.make_node("Gemm", ["input", "w1"], ["a"]),
        helper.make_node(op_type, ["a", *more], ["c"], domain=domain, **attributes),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Gemm", ["r", "w2"], ["y"]),
    ]
    arrays = {"w1": weight(12, 16), "w2": weight(16, 5), "w16": weight(16, 16), "s": np.ones(16, np.float32)}
    arrays["pads"] = np.zeros(4, np.int64)
    stored = [numpy_helper.from_array(a, n) for n, a in arrays.items()]
    graph = helper.make_graph(nodes, "g", [value("input", "n", 12)], [value("y", "n", 5)], stored)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    artifact = Artifact.onnx(helper.make_model(graph, opset_imports=opsets, ir_version=10), InputSpec(SHAPE))
    assert relative_error(run, artifact, noise_split(SHAPE, 64), format=form) < 0.06


@pytest.mark.parametrize(("control", "name"), [("nested", "If"), ("loop", "Loop")])
def test_layers_in_subgraphs_are_told(control, name):
    artifact = network(CONTROL[control]())
    told = QuantizeStage().remarks(artifact, {}, StageContext(None, Cache()))
    assert told == (f"Left float: {name}_3: layers in the subgraphs of If, Loop and Scan are not quantized",)
