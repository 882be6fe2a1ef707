"""Tests memory plans of networks against published figures, and the effect of each deployment option."""

import json
from pathlib import Path

import numpy as np
import pytest

from evaluators.cost.graph import Geometry, Kernel, OpGraph, op_graph
from evaluators.cost.memory import peak_activation_bytes, plan_memory, runtime_bytes
from evaluators.devices.device import Deployment
from evaluators.testing import model_from_text
from spaces.errors import EvaluationError
from spaces.stages.artifact import Artifact, InputSpec

MLPERF_TINY = Path(__file__).parents[4].parent / "shared/data/mlperf_tiny"
TFLM = Deployment(order="file", arena="greedy", in_place=(), alignment_bytes=16)
TINY_ENGINE = Deployment(in_place=("elementwise", "depthwise"))


def kernel(name, reads, writes, kind="other", weights=0, **more):
    return Kernel(
        name, more.pop("op", "Op"), kind, "int8", 0, weights, tuple(reads), tuple(writes), 0, 0, **more
    )


def graph_of(kernels, sizes, inputs=("x",), outputs=("y",), weights=0):
    return OpGraph(tuple(kernels), tuple(inputs), tuple(outputs), sizes, weights, {})


@pytest.mark.parametrize(
    ("file", "shape", "live_kib", "arena_kib"),
    [
        # The arena sizes are those that TensorFlow Lite Micro reports ("Arena allocation head") for int8
        # networks of these shapes. It places the last of equally large buffers first; in the reverse order
        # the fourth would be 63 KiB.
        ("ad01_fp32.onnx", (640,), 0.75, 0.75),
        ("pretrainedResnet.onnx", (32, 32, 3), 48, 48),
        ("kws_ref_model_float32.onnx", (49, 10, 1), 15.625, 15.625),
        ("vww_96_float.onnx", (96, 96, 3), 54, 72),
    ],
)
def test_published_networks(file, shape, live_kib, arena_kib):
    path = MLPERF_TINY / file
    if not path.exists():
        pytest.skip(f"{path} is absent")
    graph = op_graph(Artifact.onnx(path.read_bytes(), InputSpec(shape, "input_1")))
    plan = plan_memory(graph, TFLM)
    assert plan.live_bytes == 4 * 1024 * live_kib  # float32 takes four times int8
    assert plan.peak_activation_bytes == 4 * 1024 * arena_kib
    assert peak_activation_bytes(graph) == 4 * 1024 * live_kib


def convolution(name, reads, writes, kind, shape_in, shape_out, window=1, stride=1):
    (h_in, c_in), (h_out, c_out) = shape_in, shape_out
    geometry = Geometry(
        c_in,
        c_out,
        (window, window),
        (stride, stride),
        c_in if kind == "depthwise" else 1,
        (h_in, h_in),
        (h_out, h_out),
    )
    per_output = window**2 * (1 if kind == "depthwise" else c_in)
    return Kernel(
        name, "Conv", kind, "int8", h_out**2 * c_out * per_output, 0, (reads,), (writes,),
        h_in**2 * c_in, h_out**2 * c_out, geometry=geometry,
    )  # fmt: skip


def chain(layers, size):
    """A chain of convolutions from (kind, channels, window, stride); a square input of three channels."""
    kernels, sizes, shape = [], {"t0": size * size * 3}, (size, 3)
    for i, (kind, channels, window, stride) in enumerate(layers):
        following = (-(-shape[0] // stride), channels)
        kernels.append(convolution(f"k{i}", f"t{i}", f"t{i + 1}", kind, shape, following, window, stride))
        sizes[f"t{i + 1}"], shape = following[0] ** 2 * channels, following
    return graph_of(kernels, sizes, ["t0"], [f"t{len(layers)}"])


def test_tiny_engine_works_in_place():
    """MCUNet's first layers for 80x80 images: TinyEngine reports 92 kB, including its other buffers."""
    layers = [
        ("conv", 16, 3, 2), ("depthwise", 16, 3, 1), ("pointwise", 8, 1, 1), ("pointwise", 48, 1, 1),
        ("depthwise", 48, 3, 2), ("pointwise", 16, 1, 1),
    ]  # fmt: skip
    graph = chain(layers, 80)
    assert plan_memory(graph, TINY_ENGINE).live_bytes == 40 * 40 * (8 + 48)
    assert plan_memory(graph, Deployment()).live_bytes == 40 * 40 * 48 + 20 * 20 * 48


def test_depthwise_needs_one_channel_more():
    same = plan_memory(chain([("conv", 16, 3, 2), ("depthwise", 16, 3, 1)], 40), TINY_ENGINE)
    assert same.timeline[1].total_bytes == 20 * 20 * 17
    assert same.timeline[1].live == {"t2": 6400, "k1 (scratch)": 400}
    strided = plan_memory(
        chain([("conv", 16, 3, 2), ("depthwise", 16, 3, 2), ("pointwise", 8, 1, 1)], 40), TINY_ENGINE
    )
    assert strided.timeline[1].total_bytes == 20 * 20 * 17  # its output fills a quarter of its input
    assert strided.timeline[2].total_bytes == 10 * 10 * (16 + 8)
    wider = plan_memory(chain([("conv", 16, 3, 2), ("depthwise", 32, 3, 1)], 40), TINY_ENGINE)
    assert wider.timeline[1].total_bytes == 20 * 20 * 48  # a channel has two outputs: not in place


def test_elementwise_overwrites_an_input_that_is_not_read_later():
    text = """g (float[n,16] input) => (float[n,{width}] output) {{
        a = MatMul(input, weight)
        b = Sigmoid(a)
        {last}
    }}"""
    weight = {"weight": np.zeros((16, 16), np.float32)}
    dies = op_graph(model_from_text(text.format(width=16, last="output = Tanh(b)"), weight))
    assert peak_activation_bytes(dies) == 2 * 64  # at the product: its input and its output
    assert plan_memory(dies, Deployment(in_place=())).live_bytes == 2 * 64
    lives = op_graph(model_from_text(text.format(width=32, last="output = Concat<axis = 1>(a, b)"), weight))
    assert peak_activation_bytes(lives) == 64 + 64 + 128


def test_input_that_is_also_output_stays():
    model = model_from_text(
        """g (float[n,16] input) => (float[n,16] hidden, float[n,16] output) {
            hidden = Sigmoid(input)
            output = Tanh(hidden)
        }""",
        {},
    )
    assert peak_activation_bytes(op_graph(model)) == 2 * 64


def two_layers():
    kernels = [kernel("k0", ["x"], ["t"], weights=1000), kernel("k1", ["t"], ["y"], weights=300)]
    return graph_of(kernels, {"x": 100, "t": 90, "y": 700}, weights=1250)


@pytest.mark.parametrize("arena", ["liveness", "greedy"])
@pytest.mark.parametrize(
    ("weights", "sram_bytes", "flash_bytes"),
    [("flash", 790 + 50, 1250), ("ram", 790 + 1250 + 50, 0), ("stream", 1190 + 50, 1250)],
)
def test_memory_of_the_weights(weights, sram_bytes, flash_bytes, arena):
    plan = plan_memory(two_layers(), Deployment(weights=weights, overhead_bytes=50, arena=arena))
    assert (plan.peak_sram_bytes, plan.flash_bytes) == (sram_bytes, flash_bytes)
    assert plan.peak_activation_bytes == 790
    assert plan.peak_kernel == ("k0" if weights == "stream" else "k1")
    if weights == "stream":
        assert plan.peak_live == {"x": 100, "t": 90, "k0 (weights)": 1000}


def test_the_runtimes_own_structures_are_counted_per_kernel_and_channel():
    graph = chain([("conv", 8, 3, 2), ("depthwise", 8, 3, 1)], 16)
    bare = plan_memory(graph)
    deployment = Deployment(overhead_bytes=1000, kernel_overhead_bytes=100, channel_overhead_bytes=7)
    plan = plan_memory(graph, deployment)
    assert plan.runtime_bytes == runtime_bytes(graph, deployment) == 1000 + 2 * 100 + 16 * 7
    assert plan.peak_sram_bytes == bare.peak_sram_bytes + plan.runtime_bytes
    assert plan.peak_activation_bytes == bare.peak_activation_bytes


def test_alignment_rounds_every_buffer_up():
    plan = plan_memory(two_layers(), Deployment(alignment_bytes=64))
    assert plan.live_bytes == 128 + 704
    assert plan.peak_live == {"t": 128, "y": 704}


def test_order_of_the_file_can_be_kept():
    kernels = [
        kernel("wide", ["x"], ["w"]), kernel("narrow", ["x"], ["n"]), kernel("shrink", ["w"], ["s"]),
        kernel("join", ["n", "s"], ["y"]),
    ]  # fmt: skip
    graph = graph_of(kernels, {"x": 100, "w": 500, "n": 300, "s": 10, "y": 10})
    assert plan_memory(graph, Deployment(order="file")).live_bytes == 100 + 500 + 300
    best = plan_memory(graph)
    assert (best.live_bytes, best.order, best.order_is_best) == (100 + 500 + 10, (0, 2, 1, 3), True)
    assert [step.kernel for step in best.timeline] == ["wide", "shrink", "narrow", "join"]


def test_kernels_listed_before_their_producers_run_after_them():
    kernels = [kernel("second", ["a"], ["y"]), kernel("first", ["x"], ["a"])]
    plan = plan_memory(graph_of(kernels, {"x": 1, "a": 2, "y": 3}), Deployment(order="file"))
    assert (plan.order, plan.live_bytes) == ((1, 0), 5)


def test_a_cycle_raises():
    kernels = [kernel("left", ["x", "b"], ["a"]), kernel("right", ["a"], ["b"]), kernel("end", ["b"], ["y"])]
    with pytest.raises(EvaluationError, match="'left' waits for its own output"):
        plan_memory(graph_of(kernels, {"x": 1, "a": 1, "b": 1, "y": 1}))


def test_graph_without_kernels():
    plan = plan_memory(graph_of([], {"x": 7}, ["x"], ["x"]), Deployment(arena="greedy"))
    assert (plan.live_bytes, plan.peak_kernel, plan.timeline) == (7, None, ())
    assert plan.peak_sram_bytes == 7


def test_timeline_adds_up_and_is_json():
    plan = plan_memory(
        chain([("conv", 8, 3, 2), ("depthwise", 8, 3, 1), ("pointwise", 9, 1, 1)], 16), TINY_ENGINE
    )
    for step in plan.timeline:
        assert sum(step.live.values()) == step.total_bytes
    assert max(step.total_bytes for step in plan.timeline) == plan.live_bytes == sum(plan.peak_live.values())
    data = json.loads(json.dumps(plan.to_dict()))
    assert data["peak_kernel"] == plan.peak_kernel
    assert data["timeline"][1]["live"] == plan.timeline[1].live
