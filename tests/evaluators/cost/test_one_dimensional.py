"""Costs of networks on time series (one spatial axis) and on feature vectors (none)."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from evaluators.cost.graph import op_graph
from evaluators.cost.graph.runtime_graph import runtime_graph
from evaluators.cost.latency.roofline import roofline
from evaluators.cost.memory import plan_memory
from evaluators.devices.device import Deployment, Device
from spaces.models.export import ExportStage
from spaces.models.testing import outputs_of
from spaces.models.zoo.har_cnn import HarCNN
from spaces.pruning.prune import PruneStage
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import noise_split
from spaces.stages.torch_artifact import torch_artifact

TFLM = Deployment(order="file", arena="greedy", in_place=(), alignment_bytes=16)
IN_PLACE = Deployment(in_place=("elementwise", "depthwise"))


class Pooled(nn.Module):
    """`(n, 6, 64)` -> `(n, 5)`: a depthwise-separable block, a skip, a dilated, a strided and a grouped convolution."""

    def __init__(self, pooling):
        super().__init__()
        self.stem = nn.Conv1d(6, 16, 5, padding=2, bias=False)
        self.norm = nn.BatchNorm1d(16)
        self.deep = nn.Conv1d(16, 16, 3, padding=1, groups=16)
        self.wide = nn.Conv1d(16, 24, 1)
        self.dilated = nn.Conv1d(24, 24, 3, padding=2, dilation=2)
        self.grouped = nn.Conv1d(24, 32, 3, stride=2, groups=2)
        self.linear = nn.Linear(32 * 7 if pooling == "flatten" else 32, 5)
        self.pooling = pooling

    def forward(self, x):
        x = functional.max_pool1d(functional.relu(self.norm(self.stem(x))), 2)
        x = functional.relu(self.wide(functional.relu(self.deep(x))))
        x = functional.avg_pool1d(x + self.dilated(x), 2)
        x = functional.relu(self.grouped(x))
        if self.pooling == "adaptive":
            x = functional.adaptive_avg_pool1d(x, 1).squeeze(-1)
        elif self.pooling == "whole":
            x = functional.avg_pool1d(x, x.shape[-1])
        return self.linear(x.flatten(1))


def perceptron():
    """`(n, 30)` -> `(n, 2)`."""
    return nn.Sequential(
        *(nn.Linear(30, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32, bias=False)),
        *(nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2)),
    )


NETWORKS = {
    "har": (HarCNN, (6, 128)),
    "perceptron": (perceptron, (30,)),
    **{name: (lambda name=name: Pooled(name), (6, 64)) for name in ("adaptive", "whole", "flatten")},
}


@cache
def module_of(name):
    build, shape = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build()
        with torch.no_grad():
            module(torch.randn(64, *shape))  # BatchNorm's statistics
    return module.eval(), shape


@cache
def exported(name):
    module, shape = module_of(name)
    return ExportStage().apply(torch_artifact(module, InputSpec(shape)), {}, StageContext(None, Cache()))


@cache
def quantized(name, **values):
    stage = QuantizeStage()
    context = StageContext(noise_split(exported(name).input.shape), Cache())
    return stage.apply(exported(name), stage.defaults() | {"calibration_images": 8} | values, context)


@cache
def runtime(name, granularity="channel"):
    """The kernels that onnxruntime executes for the int8 file."""
    return runtime_graph(quantized(name, granularity=granularity))


def counted_macs(name):
    """Output elements times weights per output element, by the shapes in torch."""
    module, shape = module_of(name)
    macs = []
    hooks = [
        layer.register_forward_hook(lambda m, _, y: macs.append(y[0].numel() * m.weight[0].numel()))
        for layer in module.modules()
        if isinstance(layer, nn.Conv1d | nn.Linear)
    ]
    module(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return sum(macs)


@pytest.mark.parametrize("name", NETWORKS)
def test_macs_agree_with_torch_in_every_file_format(name):
    macs = counted_macs(name)
    graphs = [
        op_graph(exported(name)),
        op_graph(quantized(name)),
        op_graph(quantized(name, format="qoperator")),
        op_graph(quantized(name, weight_bits=4)),
        *([runtime(name)] if name in ("har", "adaptive") else []),
    ]
    assert {graph.macs for graph in graphs} == {macs}
    assert all(not graph.unknown for graph in graphs[:4])


def test_macs_of_the_activity_network_by_hand():
    by_hand = 64 * 32 * 6 * 5 + 32 * 48 * 32 * 5 + 16 * 64 * 48 * 5 + 64 * 6
    assert op_graph(quantized("har")).macs == by_hand == 553_344


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_an_int8_file_computes_on_int8_throughout(name, form):
    graph = op_graph(quantized(name, format=form))
    assert {kernel.dtype for kernel in graph.kernels} == {"int8"}
    assert {kernel.activation_bits for kernel in graph.kernels} == {8}


@pytest.mark.parametrize("name", ["har", "adaptive"])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_onnxruntime_has_integer_kernels_for_one_axis(name, granularity):
    graph = runtime(name, granularity)
    heavy = [kernel.op.split(".")[0] for kernel in graph.kernels if kernel.macs]
    assert set(heavy) == {"QLinearConv", "QGemm"}


def test_classes_and_shapes():
    by_name = {k.name: k for k in op_graph(quantized("adaptive")).kernels}
    kinds = {name: by_name[name].kind for name in ("stem", "deep", "wide", "dilated", "grouped", "linear")}
    assert kinds == {
        "stem": "conv",
        "deep": "depthwise",
        "wide": "pointwise",
        "dilated": "conv",
        "grouped": "conv",
        "linear": "fully_connected",
    }
    others = [k.kind for k in by_name.values() if k.name not in kinds]
    assert others == ["pool", "elementwise", "pool", "pool"]
    grouped = by_name["grouped"].geometry
    assert (grouped.in_channels, grouped.out_channels, grouped.groups) == (24, 32, 2)
    # one axis is a width
    assert (grouped.window, grouped.stride, grouped.in_size, grouped.out_size) == (
        (1, 3),
        (1, 2),
        (1, 16),
        (1, 7),
    )


@pytest.mark.parametrize("name", ["har", "adaptive"])
def test_the_runtimes_kernels_have_the_same_shapes(name):
    ours = [k.geometry for k in op_graph(quantized(name)).kernels if k.kind in ("conv", "pointwise")]
    theirs = [k.geometry for k in runtime(name).kernels if k.kind in ("conv", "pointwise")]
    assert theirs == ours


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_memory_of_the_activity_network_by_hand(form):
    """(6, 128) -> (32, 64) -> (48, 32) -> (64, 16) -> 64 -> 6: int8 throughout, the logits float."""
    graph = op_graph(quantized("har", format=form))
    steps = [6 * 128 + 32 * 64, 32 * 64 + 48 * 32, 48 * 32 + 64 * 16, 64 * 16 + 64, 64 + 4 * 6]
    plan = plan_memory(graph)
    assert [step.total_bytes for step in plan.timeline] == steps
    assert plan.peak_sram_bytes == plan.peak_activation_bytes == plan.live_bytes == 32 * 64 + 48 * 32
    assert plan_memory(graph, TFLM).peak_sram_bytes == 32 * 64 + 48 * 32


def test_a_relu_kernel_overwrites_its_input():
    """A symmetric scheme cannot fold the Relu; in QOperator files the last Relu and the mean are float."""
    integer = plan_memory(op_graph(quantized("har", scheme="symmetric")))
    assert integer.peak_sram_bytes == 32 * 64 + 48 * 32
    last_is_float = plan_memory(op_graph(quantized("har", scheme="symmetric", format="qoperator")))
    assert last_is_float.peak_sram_bytes == 64 * 16 + 4 * 64 * 16


def test_memory_of_the_float_network_is_four_times_that():
    assert plan_memory(op_graph(exported("har"))).peak_sram_bytes == 4 * (32 * 64 + 48 * 32)


@pytest.mark.parametrize("pooling", ["adaptive", "whole", "flatten"])
def test_memory_of_a_network_with_a_skip_by_hand(pooling):
    """The pooled tensor is a view of the last layer's input, or as large: all peaks are equal."""
    graph = op_graph(quantized(pooling))
    last = [32 * 7 + 4 * 5] if pooling == "flatten" else [32 * 7 + 32, 32 + 4 * 5]
    steps = [
        6 * 64 + 16 * 64,  # stem
        16 * 64 + 16 * 32,  # max pool
        16 * 32 + 16 * 32,  # depthwise
        16 * 32 + 24 * 32,  # pointwise
        24 * 32 + 24 * 32,  # dilated; its input is read again by the addition
        24 * 32 + 24 * 32,  # the addition overwrites one of its inputs
        24 * 32 + 24 * 16,  # average pool
        24 * 16 + 32 * 7,  # grouped
        *last,
    ]
    plan = plan_memory(graph)
    assert [step.total_bytes for step in plan.timeline] == steps
    assert plan.peak_sram_bytes == max(steps) == 1536
    # without in-place kernels the addition has three live tensors
    assert plan_memory(graph, TFLM).peak_sram_bytes == 3 * 24 * 32


def test_a_depthwise_convolution_in_place_needs_one_channel_more():
    plan = plan_memory(op_graph(quantized("adaptive")), IN_PLACE)
    step = next(step for step in plan.timeline if step.kernel == "deep")
    assert step.total_bytes == 16 * 32 + 32


def test_patches_run_along_the_only_axis():
    """The stage's output is the (32, 7) tensor; without a height, patches are slices in time."""
    whole, patched = (
        plan_memory(op_graph(quantized("adaptive")), Deployment(patches=patches)) for patches in (1, 2)
    )
    assert patched.peak_sram_bytes < whole.peak_sram_bytes
    assert patched.patches is not None
    assert all(1 <= work < 2 for work in patched.patches.work)


def test_memory_of_a_perceptron_by_hand():
    plan = plan_memory(op_graph(quantized("perceptron")))
    assert [step.total_bytes for step in plan.timeline] == [30 + 64, 64 + 32, 32 + 4 * 2]
    assert plan.peak_sram_bytes == 96


def test_flash_of_the_activity_network_by_hand():
    """Per output channel: int8 weights, their scale and zero point (4 + 1 bytes), and the int32 bias with its
    scale and zero point (4 + 4 + 4). Per activation: scale and zero point (4 + 1). The axis of the mean (8)."""
    channels, n_activations = 32 + 48 + 64 + 6, 5
    weights = 32 * 6 * 5 + 48 * 32 * 5 + 64 * 48 * 5 + 6 * 64
    by_hand = weights + 17 * channels + 5 * n_activations + 8
    assert op_graph(quantized("har", granularity="channel")).weight_bytes == by_hand


@cache
def halved(name):
    """The network with half the channels of every layer but the last, and its file."""
    module, shape = module_of(name)
    stage, context = PruneStage(min_channels=1), StageContext(noise_split(shape), Cache())
    pruned = stage.apply(torch_artifact(module, InputSpec(shape)), stage.defaults() | {"ratio": 0.5}, context)
    return pruned, ExportStage().apply(pruned, {}, context)


@pytest.mark.parametrize(
    ("name", "macs", "n_parameters"),
    [
        # the exporter folds a BatchNorm into the bias of the preceding convolution
        (
            "har",
            64 * 16 * 30 + 32 * 24 * 80 + 16 * 32 * 120 + 32 * 6,
            480 + 1920 + 3840 + 192 + 16 + 24 + 32 + 6,
        ),
        ("perceptron", 30 * 32 + 32 * 16 + 16 * 2, 960 + 512 + 32 + 32 + 16 + 2),
    ],
)
def test_a_pruned_network_has_the_costs_of_its_remaining_channels(name, macs, n_parameters):
    pruned, file = halved(name)
    inputs = next(noise_split(pruned.input.shape, 16, seed=2).batches(16))[0]
    wanted, got = outputs_of(pruned, inputs), outputs_of(file, inputs)
    assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()
    graph = op_graph(file)
    assert graph.macs == macs
    axes_bytes = 8 if name == "har" else 0  # the stored axis of the mean
    assert graph.weight_bytes == 4 * n_parameters + axes_bytes


def test_memory_of_the_pruned_activity_network_by_hand():
    stage, context = QuantizeStage(), StageContext(noise_split((6, 128)), Cache())
    int8 = stage.apply(halved("har")[1], stage.defaults() | {"calibration_images": 8}, context)
    steps = [6 * 128 + 16 * 64, 16 * 64 + 24 * 32, 24 * 32 + 32 * 16, 32 * 16 + 32, 32 + 4 * 6]
    assert [step.total_bytes for step in plan_memory(op_graph(int8)).timeline] == steps


def test_latency_is_a_sum_over_the_kernels():
    device = Device(
        "board",
        macs_per_s={"int8": {"conv": 1e6, "fully_connected": 2e6, "default": 1e6}},
        kernel_overhead_us={"default": 100.0},
    )
    latency_ms = roofline(op_graph(quantized("har")), device).latency_ms
    assert latency_ms == pytest.approx((553_344 - 384) / 1e3 + 384 / 2e3 + 5 * 0.1, rel=1e-12)


@pytest.mark.usefixtures("exact_integer_kernels")
@pytest.mark.parametrize("name", NETWORKS)
def test_integer_kernels_agree_with_simulated_quantization(name):
    """Compares onnxruntime's integer kernels with the same file run node by node in float32."""
    from evaluators.runtime import open_session, run_session

    data = quantized(name).onnx_bytes
    inputs = next(noise_split(exported(name).input.shape, 64, seed=1).batches(64))[0]
    fused, simulated = (
        run_session(open_session(data, 1, optimize=optimize), inputs, ["output"])[0]
        for optimize in (True, False)
    )
    noise = np.sqrt(np.mean((fused - simulated) ** 2) / np.mean(simulated**2))
    assert noise < 2e-2  # a few values are rounded to the neighbouring integer
