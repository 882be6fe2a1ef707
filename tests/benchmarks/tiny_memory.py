"""The memory planner against published figures: MLPerf Tiny, Ethos-U's compiler, TinyEngine, MCUNetV2.

Run from the root of the repository::

    python tests/benchmarks/tiny_memory.py --networks ../shared/data/mlperf_tiny

Quantizes the four MLPerf Tiny networks to int8 (on noise: memory does not depend on it) and prints, in KiB, the bounds
in the file's and the best order, the greedy arena and what the runtimes take, with the buffers at the peak.
"""

import argparse
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from evaluators.cost.graph import Geometry, Kernel, OpGraph, op_graph
from evaluators.cost.memory import MemoryPlan, plan_memory, runtime_bytes
from evaluators.cost.memory.greedy import buffers, place
from evaluators.cost.memory.liveness import aligned, moments, problem_of, tensor_names
from evaluators.devices.device import Deployment
from spaces.models.export import ExportStage
from spaces.models.zoo.mobilenet_v2 import MobileNetV2Model
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import noise_split
from spaces.stages.torch_artifact import torch_artifact

TFLM = Deployment(order="file", arena="greedy", in_place=(), alignment_bytes=16)
# A line through the measured tails below, and per channel the two words that requantize it.
TFLM_RUNTIME = replace(TFLM, overhead_bytes=800, kernel_overhead_bytes=170, channel_overhead_bytes=8)
TINY_ENGINE = Deployment(in_place=("elementwise", "depthwise"))
ETHOS_U = Deployment(alignment_bytes=16)


@dataclass(frozen=True)
class Published:
    """Figures of one network, in bytes unless said otherwise.

    Attributes:
        file: Its file.
        shape: Its input.
        head: What TensorFlow Lite Micro plans ("Arena allocation head") for a .tflite file of these shapes; measured
            with tests/benchmarks/tflm_arena.py, tflite-micro 0.dev20261023182759.
        tail: What it keeps besides ("Arena allocation tail"), same run: on a 64-bit machine, reference kernels.
        tensors: Tensors of that file, weights included.
        operators: Operators of that file.
        allocated_kib: Arena of the Renesas RA8D1 submission to MLPerf Tiny; set by hand.
        vela_kib: SRAM that Arm's compiler for Ethos-U55 reports.
    """

    file: str
    shape: tuple[int, ...]
    head: int
    tail: int
    tensors: int
    operators: int
    allocated_kib: int
    vela_kib: float


NETWORKS = {
    "anomaly detection": Published("ad01_fp32.onnx", (640,), 768, 3216, 31, 10, 10, 0.75),
    "keyword spotting": Published("kws_ref_model_float32.onnx", (49, 10, 1), 16000, 8272, 35, 13, 31, 21.7),
    "image classification": Published("pretrainedResnet.onnx", (32, 32, 3), 49152, 6832, 38, 16, 60, 50.6),
    "visual wake words": Published("vww_96_float.onnx", (96, 96, 3), 73728, 29952, 89, 31, 100, 72.7),
}

# TinyEngine's README: STM32H743, int8. Resolution, channels of the first layers, then blocks: window and stride of the
# depthwise layer, channels of the expansion and of the output, as its generated code lists them.
Block = tuple[int, int, int, int]
MCUNETS: Mapping[str, tuple[int, int, Sequence[Block]]] = {
    "mcunet-vww1": (80, 92_000, (
        (3, 2, 48, 16), (3, 1, 48, 16), (3, 1, 48, 16), (7, 2, 48, 24), (3, 1, 144, 24), (5, 1, 120, 24),
        (7, 2, 144, 40), (7, 1, 240, 40), (3, 1, 240, 48), (3, 1, 192, 48), (5, 2, 240, 96), (3, 1, 480, 96),
        (3, 1, 384, 96), (7, 1, 288, 160),
    )),
    "mcunet-vww2": (144, 174_000, (
        (3, 2, 24, 16), (3, 1, 80, 16), (5, 1, 96, 16), (3, 1, 48, 16), (7, 2, 80, 24), (5, 1, 96, 24),
        (3, 1, 96, 24), (7, 1, 144, 24), (3, 2, 144, 40), (7, 1, 240, 40), (5, 1, 160, 40), (3, 1, 200, 40),
        (5, 1, 200, 48), (5, 1, 144, 48), (3, 1, 192, 48), (5, 1, 144, 48), (3, 2, 192, 96), (5, 1, 480, 96),
        (5, 1, 384, 96), (3, 1, 384, 96), (3, 1, 480, 160),
    )),
}  # fmt: skip


def int8_graph(folder: Path, published: Published) -> OpGraph:
    """Quantizes one network with the project's own stages, at their defaults."""
    proto = (folder / published.file).read_bytes()
    artifact = Artifact.onnx(proto, InputSpec(published.shape, "input_1"))
    context = StageContext(noise_split(published.shape, 8), Cache())
    exported = ExportStage().apply(artifact, {}, context)
    return op_graph(QuantizeStage().apply(exported, {}, context))


def with_int8_outputs(graph: OpGraph) -> OpGraph:
    """The graph as TensorFlow Lite has it: this project's files hand out floats where a product comes last."""
    sizes = {t: k.elements for k in graph.kernels for t in k.outputs if t in graph.outputs}
    return replace(graph, tensor_bytes={**graph.tensor_bytes, **sizes})


def mobilenet_v2() -> OpGraph:
    """MobileNetV2 for 224x224 images; in float, whose tensors are four times those of int8."""
    source = MobileNetV2Model(None)
    artifact = torch_artifact(source.build().eval(), InputSpec((3, 224, 224)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about its internals
        return op_graph(
            ExportStage().apply(artifact, {}, StageContext(noise_split((3, 224, 224), 1), Cache()))
        )


def scratch(kernel: Kernel) -> int:
    """What CMSIS-NN asks for one kernel on a core with Helium (arm_*_get_buffer_sizes_s8.c).

    Four columns of the image for a convolution; four rows of 124 channels for a depthwise one.
    """
    shape = kernel.geometry
    if shape is None or kernel.kind not in ("conv", "depthwise"):
        return 0
    window = math.prod(shape.window)
    return 4 * 124 * window if kernel.kind == "depthwise" else 4 * aligned(shape.in_channels * window, 16)


def with_scratch(graph: OpGraph) -> int:
    """The greedy arena with CMSIS-NN's scratch buffers among the others."""
    problem = problem_of(graph, TFLM)
    problem = replace(problem, alone=tuple(aligned(scratch(k), 16) for k in graph.kernels))
    happened = list(moments(problem, range(len(graph.kernels))))
    return place(buffers(problem, happened, tensor_names(graph), [k.name for k in graph.kernels])).n_bytes


def tail_on_32_bits(graph: OpGraph, published: Published) -> int:
    """The measured tail, less what shorter pointers save, and the sums that Helium's fully connected kernels keep.

    An entry per tensor is 12 instead of 24 bytes, one per operator 32 instead of 64.
    """
    sums = sum(
        4 * k.geometry.out_channels for k in graph.kernels if k.kind == "fully_connected" and k.geometry
    )
    return published.tail - 12 * published.tensors - 32 * published.operators + sums


def in_bricks(graph: OpGraph) -> OpGraph:
    """Channels of inner tensors rounded up to 16, as Ethos-U keeps them (NHCWB16)."""
    channels = {t: k.geometry.out_channels for k in graph.kernels if k.geometry for t in k.outputs}
    for kernel in graph.kernels:
        if kernel.geometry is None and kernel.kind == "elementwise":
            channels |= {
                t: channels[kernel.inputs[0]] for t in kernel.outputs if kernel.inputs[0] in channels
            }
    outer = {*graph.inputs, *graph.outputs}
    sizes = {
        t: n // channels[t] * aligned(channels[t], 16) if t in channels and t not in outer else n
        for t, n in graph.tensor_bytes.items()
    }
    return replace(graph, tensor_bytes=sizes)


def staged_weights(kernel: Kernel) -> int:
    """Weights and scales of a convolution, which Ethos-U reads through its SRAM: 10 bytes of scale a channel."""
    shape = kernel.geometry
    if shape is None or kernel.kind not in ("conv", "pointwise", "depthwise"):
        return 0
    each = math.prod(shape.window) * shape.in_channels // shape.groups + 10
    return aligned(each * shape.out_channels, 16)


def ethos_u(graph: OpGraph) -> tuple[int, str]:
    """The most that is live with the weights of the running kernel and of the next, which are fetched meanwhile."""
    plan = plan_memory(in_bricks(graph), ETHOS_U)
    kernels = [graph.kernels[k] for k in plan.order]
    weights = [staged_weights(k) for k in kernels] + [0]
    largest = max(plan.timeline, key=lambda step: step.total_bytes).total_bytes
    # Vela stages as much of the weights as is free below the peak of the activations, so only that one counts.
    totals = [
        (step.total_bytes + weights[i] + weights[i + 1], i)
        for i, step in enumerate(plan.timeline)
        if step.total_bytes == largest
    ]
    n_bytes, i = max(totals)
    activations = " + ".join(str(n) for n in sorted(plan.timeline[i].live.values(), reverse=True))
    return n_bytes, f"{activations} + {weights[i]} weights + {weights[i + 1]} next weights"


def mcunet(size: int, blocks: Sequence[Block]) -> OpGraph:
    """One of MCUNet's networks in int8."""
    kernels: list[Kernel] = []
    sizes = {"t0": size * size * 3}
    shape = (size, 3)

    def add(kind: str, channels: int, window: int = 1, stride: int = 1) -> None:
        nonlocal shape
        t, following = f"t{len(kernels)}", (-(-shape[0] // stride), channels)
        out = f"t{len(kernels) + 1}"
        sizes[out] = following[0] ** 2 * channels
        geometry = Geometry(
            shape[1], channels, (window, window), (stride, stride), shape[1] if kind == "depthwise" else 1,
            (shape[0], shape[0]), (following[0], following[0]),
        )  # fmt: skip
        name = f"{kind} {following[0]}x{following[0]}x{channels}"
        kernels.append(
            Kernel(name, "Conv", kind, "int8", 0, 0, (t,), (out,), sizes[t], sizes[out], geometry=geometry)
        )
        shape = following

    for kind, channels, window, stride in (
        ("conv", 16, 3, 2),
        ("depthwise", 16, 3, 1),
        ("pointwise", 8, 1, 1),
    ):
        add(kind, channels, window, stride)
    for window, stride, expanded, channels in blocks:
        before, t = shape, f"t{len(kernels)}"
        add("pointwise", expanded)
        add("depthwise", expanded, window, stride)
        add("pointwise", channels)
        if before == shape:
            last, out = f"t{len(kernels)}", f"t{len(kernels) + 1}"
            sizes[out] = sizes[last]
            kernels.append(
                Kernel("add", "Add", "elementwise", "int8", 0, 0, (last, t), (out,), 2 * sizes[t], sizes[t])
            )
    return OpGraph(tuple(kernels), ("t0",), (f"t{len(kernels)}",), sizes, 0, {})


def kib(n_bytes: float) -> str:
    """Writes bytes as KiB."""
    return f"{n_bytes / 1024:.2f}"


def difference(found: float, published: float) -> str:
    """Writes a relative difference."""
    return f"{100 * (found / published - 1):+.1f} %"


def at_peak(plan: MemoryPlan) -> str:
    """Writes the buffers at the peak, largest first; tensors by their size alone."""
    live = sorted(plan.peak_live.items(), key=lambda item: -item[1])
    return " + ".join(f"{n}{' weights' if name.endswith('(weights)') else ''}" for name, n in live)


def table(title: str, *columns: str) -> Table:
    """An empty table."""
    found = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        found.add_column(column, justify="right" if i else "left", overflow="fold")
    return found


def activations(graphs: Mapping[str, OpGraph]) -> Table:
    """Bounds and arenas of the activations. The files of this project differ only by outputs in floating point."""
    found = table(
        "Activations of int8 networks, KiB", "network", "float outputs", "file's order", "best order", "in place",
        "greedy", "TFLM's own", "difference", "buffers at the peak, bytes",
    )  # fmt: skip
    for name, exported in graphs.items():
        graph, head = with_int8_outputs(exported), NETWORKS[name].head
        own = plan_memory(graph, replace(TFLM, arena="liveness"))
        arena = plan_memory(graph, TFLM).peak_activation_bytes
        bounds = (
            plan_memory(exported, replace(TFLM, arena="liveness")), own,
            plan_memory(graph, replace(TFLM, arena="liveness", order="best")), plan_memory(graph, TINY_ENGINE),
        )  # fmt: skip
        found.add_row(
            name, *(kib(plan.live_bytes) for plan in bounds), kib(arena), kib(head), difference(arena, head), at_peak(own)
        )  # fmt: skip
    return found


def arenas(graphs: Mapping[str, OpGraph]) -> Table:
    """The whole arena of TensorFlow Lite Micro: planned buffers, the kernels' scratch, its own structures."""
    found = table(
        "TensorFlow Lite Micro's arena on RA8D1, KiB", "network", "greedy", "with scratch", "tail, 32 bits", "by formula",
        "sum", "allocated", "difference",
    )  # fmt: skip
    for name, exported in graphs.items():
        graph, published = with_int8_outputs(exported), NETWORKS[name]
        arena = plan_memory(graph, TFLM).peak_activation_bytes
        head, tail = with_scratch(graph), tail_on_32_bits(graph, published)
        found.add_row(
            name, kib(arena), kib(head), kib(tail), kib(runtime_bytes(graph, TFLM_RUNTIME)), kib(head + tail),
            str(published.allocated_kib),
            difference(head + tail, 1024 * published.allocated_kib),
        )  # fmt: skip
    return found


def npu(graphs: Mapping[str, OpGraph]) -> Table:
    """Ethos-U55 as its compiler plans it."""
    found = table(
        "Ethos-U55's SRAM, KiB", "network", "planned", "Vela", "difference", "buffers at the peak, bytes"
    )
    for name, exported in graphs.items():
        n_bytes, buffers = ethos_u(with_int8_outputs(exported))
        vela = NETWORKS[name].vela_kib
        found.add_row(name, kib(n_bytes), str(vela), difference(n_bytes, 1024 * vela), buffers)
    return found


def tiny_engine() -> Table:
    """MCUNet's networks in TinyEngine; its total also holds static buffers of its kernels."""
    found = table(
        "TinyEngine, bytes", "network", "in place", "published", "difference", "buffers at the peak"
    )
    for name, (size, published, blocks) in MCUNETS.items():
        plan = plan_memory(mcunet(size, blocks), TINY_ENGINE)
        found.add_row(
            name, str(plan.live_bytes), str(published), difference(plan.live_bytes, published), at_peak(plan)
        )
    return found


def patches() -> Table:
    """MobileNetV2 patch by patch; the paper's 172 KiB are 28 x 28 x (32 + 192), without the block's shortcut."""
    found = table(
        "MobileNetV2, 224x224, int8, KiB",
        "patches",
        "peak",
        "published",
        "extra MACs",
        "stage",
        "at the peak",
    )
    graph = mobilenet_v2()
    for n, published in ((1, "1372"), (2, ""), (3, ""), (4, "172"), (5, "")):
        plan = plan_memory(graph, replace(TINY_ENGINE, patches=n))
        stage = plan.patches
        stage_cells = (
            ("", "")
            if stage is None
            else (f"{100 * stage.extra_macs / graph.macs:.1f} %", f"{len(stage.kernels)} kernels")
        )
        live = " + ".join(kib(b / 4) for b in sorted(plan.peak_live.values(), reverse=True))
        found.add_row(f"{n}x{n}", kib(plan.live_bytes / 4), published, *stage_cells, live)
    return found


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=Path, required=True, help="folder of the MLPerf Tiny ONNX files")
    folder = parser.parse_args().networks
    graphs = {name: int8_graph(folder, published) for name, published in NETWORKS.items()}
    console = Console(width=160)
    for each in (activations(graphs), arenas(graphs), npu(graphs), tiny_engine(), patches()):
        console.print(each)


if __name__ == "__main__":
    main()
