"""Tests patch-based inference: tiles against sets of positions, and MobileNetV2 against the paper."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.cost.graph import Geometry, Kernel, OpGraph
from evaluators.cost.memory import plan_memory
from evaluators.cost.memory.tiles import spatial_prefix, tiles
from evaluators.devices.device import Deployment

IN_PLACE = ("elementwise", "depthwise")
# Expansion, channels, repetitions, stride of the first: table 2 of MobileNetV2 (arXiv 1801.04381).
STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


class Network:
    """Builds the kernel graph of an int8 network layer by layer."""

    def __init__(self, height, width, channels):
        self.sizes = {"input": (height, width, channels)}
        self.kernels = []

    def add(self, kind, reads, out, window=(1, 1), stride=(1, 1), groups=1, op="Conv"):
        name = f"t{len(self.kernels)}"
        h, w, c = self.sizes[reads[0]]
        geometry = None
        if kind != "elementwise":
            geometry = Geometry(c, out[2], window, stride, groups, (h, w), out[:2])
        macs = (
            0
            if kind in ("elementwise", "pool")
            else out[0] * out[1] * out[2] * window[0] * window[1] * c // groups
        )
        n_in = sum(self.n_bytes(t) for t in reads)
        self.sizes[name] = out
        self.kernels.append(
            Kernel(f"k{len(self.kernels)}", op, kind, "int8", macs, 0, tuple(reads), (name,), n_in,
                   self.n_bytes(name), geometry=geometry)
        )  # fmt: skip
        return name

    def conv(self, kind, t, channels, window=1, stride=1):
        h, w, c = self.sizes[t]
        out = (-(-h // stride), -(-w // stride), channels)
        return self.add(kind, [t], out, (window, window), (stride, stride), c if kind == "depthwise" else 1)

    def n_bytes(self, t):
        h, w, c = self.sizes[t]
        return h * w * c

    def graph(self, output):
        return OpGraph(
            tuple(self.kernels), ("input",), (output,), {t: self.n_bytes(t) for t in self.sizes}, 0, {}
        )


def mobilenet_v2(size=224):
    net = Network(size, size, 3)
    t = net.conv("conv", "input", 32, 3, 2)
    for expansion, channels, repetitions, stride in STAGES:
        for i in range(repetitions):
            before, c = t, net.sizes[t][2]
            t = net.conv("pointwise", t, expansion * c) if expansion > 1 else t
            t = net.conv("depthwise", t, expansion * c, 3, stride if i == 0 else 1)
            t = net.conv("pointwise", t, channels)
            if net.sizes[t] == net.sizes[before] and i:
                t = net.add("elementwise", [before, t], net.sizes[t], op="Add")
    t = net.conv("pointwise", t, 1280)
    t = net.add("pool", [t], (1, 1, 1280), net.sizes[t][:2], groups=1280, op="GlobalAveragePool")
    return net.graph(net.conv("fully_connected", t, 1000))


def test_mobilenet_v2_as_in_the_paper():
    """MCUNetV2 (arXiv 2110.15352, figure 1): 1372 kB layer by layer, 172 kB with 4x4 patches of the first five blocks."""
    graph = mobilenet_v2()
    assert graph.macs == 300_774_272
    whole = plan_memory(graph, Deployment(in_place=IN_PLACE))
    assert whole.live_bytes == 1372 * 1024
    patched = plan_memory(graph, Deployment(in_place=IN_PLACE, patches=4))
    # 172 kB is one expanded tensor and its input, 28 x 28 x (192 + 32); the shortcut around it is 24.5 KiB more.
    assert patched.live_bytes == 28 * 28 * (192 + 32 + 32)
    assert patched.patches.output == "t12"  # the end of the fifth block, 28 x 28 x 32
    assert 0.08 < patched.patches.extra_macs / graph.macs < 0.11
    finer = plan_memory(graph, Deployment(in_place=IN_PLACE, patches=2))
    assert patched.live_bytes < finer.live_bytes < whole.live_bytes
    assert finer.patches.extra_macs < patched.patches.extra_macs


@pytest.mark.parametrize("arena", ["liveness", "greedy"])
def test_a_stage_of_two_convolutions(arena):
    net = Network(16, 16, 3)
    t = net.conv("conv", "input", 8, 3, 1)
    t = net.conv("conv", t, 8, 3, 2)
    graph = net.graph(net.conv("fully_connected", t, 2))
    plan = plan_memory(graph, Deployment(patches=2, arena=arena))
    # A quarter of the 8 x 8 output has 4 x 4 positions; it reads 9 x 9 of t0 (8 and a halo of 1), 10 x 10 of
    # the image.
    assert plan.patches.kernels == ("k0", "k1")
    assert plan.patches.work == (pytest.approx((9 + 8) ** 2 / 256), 1.0)
    assert plan.patches.extra_macs == round(16 * 16 * 8 * 27 * (17**2 / 256 - 1))
    assert plan.timeline[0].live == {"input": 10 * 10 * 3, "t0": 9 * 9 * 8, "t1": 8 * 8 * 8}
    assert plan.timeline[1].live == {"t0": 9 * 9 * 8, "t1 (patch)": 4 * 4 * 8, "t1": 8 * 8 * 8}
    assert plan.timeline[2].live == {"t1": 8 * 8 * 8, "t2": 8 * 8 * 2}
    assert plan.live_bytes == 300 + 648 + 512
    assert plan.peak_activation_bytes >= plan.live_bytes


def test_patches_that_do_not_help_are_not_used():
    net = Network(4, 4, 1)
    graph = net.graph(net.conv("conv", net.conv("conv", "input", 1, 3), 64, 3))
    plan = plan_memory(graph, Deployment(patches=2))
    assert plan.patches is None
    assert plan == plan_memory(graph, Deployment())


def test_kernels_that_depend_on_the_whole_image_end_the_stage():
    net = Network(8, 8, 4)
    a = net.conv("conv", "input", 4, 3)
    pooled = net.add("pool", [a], (1, 1, 4), (8, 8), groups=4, op="GlobalAveragePool")
    graph = net.graph(net.add("elementwise", [a, pooled], (8, 8, 4), op="Mul"))
    n, _ = spatial_prefix(graph, (0, 1, 2))
    assert n == 1
    transposed = Network(8, 8, 4)
    t = transposed.add("conv", ["input"], (16, 16, 4), (2, 2), (2, 2), op="ConvTranspose")
    assert spatial_prefix(transposed.graph(t), (0,))[0] == 0


@st.composite
def stages(draw):
    """A chain of convolutions, some with a skip connection."""
    net = Network(draw(st.integers(6, 20)), draw(st.integers(1, 20)), 2)
    t = "input"
    for _ in range(draw(st.integers(1, 4))):
        h, w, _ = net.sizes[t]
        window = tuple(draw(st.integers(1, min(3, size))) for size in (h, w))
        stride = tuple(draw(st.integers(1, 2)) for _ in range(2))
        same = draw(st.booleans())
        sizes = [(n if same else n - k + 1, s) for n, k, s in zip((h, w), window, stride, strict=True)]
        out = (*(max(-(-n // s), 1) for n, s in sizes), 2)
        if out[:2] == (1, 1):
            break
        before, t = t, net.add("conv", [t], out, window, stride)
        if net.sizes[before] == net.sizes[t] and draw(st.booleans()):
            t = net.add("elementwise", [before, t], net.sizes[t], op="Add")
    return net.graph(t), net.sizes, t


@given(stages(), st.integers(2, 4))
def test_tiles_cover_every_position_that_a_patch_reads(stage, patches):
    graph, shapes, output = stage
    if not graph.kernels:
        return
    n, sizes = spatial_prefix(graph, range(len(graph.kernels)))
    assert n == len(graph.kernels)
    split = tiles(graph.kernels, output, sizes, patches)
    largest, computed = {}, {}
    for axis in (0, 1):
        length = shapes[output][axis]
        pieces = min(patches, length)
        for i in range(pieces):
            positions = {output: set(range(i * length // pieces, (i + 1) * length // pieces))}
            for k in reversed(graph.kernels):
                wanted = positions.get(k.outputs[0], set())
                for j, t in enumerate(k.inputs):
                    positions.setdefault(t, set()).update(
                        wanted if j or k.geometry is None else read(k, wanted, axis)
                    )
            for t in shapes:
                span = max(positions[t]) - min(positions[t]) + 1 if positions.get(t) else 0
                largest[t, axis] = max(largest.get((t, axis), 0), span)
                computed[t, axis] = computed.get((t, axis), 0) + span
    for t in split.share:
        h, w, _ = shapes[t]
        assert split.share[t] * h * w == pytest.approx(largest[t, 0] * largest[t, 1])
    for k, work in zip(graph.kernels, split.work, strict=True):
        t = k.outputs[0]
        assert work * shapes[t][0] * shapes[t][1] == pytest.approx(computed[t, 0] * computed[t, 1])


def read(kernel, wanted, axis):
    """Input positions that the windows of the wanted outputs cover, padding excluded."""
    g = kernel.geometry
    missing = max(0, (g.out_size[axis] - 1) * g.stride[axis] + g.window[axis] - g.in_size[axis])
    before = missing - missing // 2
    touched = {o * g.stride[axis] - before + i for o in wanted for i in range(g.window[axis])}
    return {p for p in touched if 0 <= p < g.in_size[axis]}
