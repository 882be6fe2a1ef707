"""Bit widths by arithmetic against the files that the quantize stage writes."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluators.cost.batch import Skeleton
from evaluators.cost.energy import energy_uj
from evaluators.cost.graph import op_graph
from evaluators.cost.graph.bits import layers_of, with_bits
from evaluators.cost.latency.roofline import roofline
from evaluators.cost.memory import plan_memory
from evaluators.devices.device import Deployment, Device, OpEnergy
from evaluators.devices.fpga import FpgaDevice
from evaluators.testing import model_from_text, tiny_model
from spaces.errors import EvaluationError
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import noise_split

# A stem, a block of pointwise, depthwise and pointwise with a skip, pooling (in floating point) and two dense layers.
TEXT = """net (float[n,3,8,8] input) => (float[n,5] output) {
    stem_out = Conv<pads = [1, 1, 1, 1]>(input, stem, stem_bias)
    x = Relu(stem_out)
    wide_out = Conv(x, expand, expand_bias)
    wide = Relu(wide_out)
    deep_out = Conv<pads = [1, 1, 1, 1], group = 9>(wide, depthwise)
    deep = Relu(deep_out)
    back = Conv(deep, project, project_bias)
    sum = Add(x, back)
    pool = ReduceMean<keepdims = 0>(sum, axes)
    hidden_out = Gemm<transB = 1>(pool, hidden, hidden_bias)
    hidden_on = Relu(hidden_out)
    output = Gemm<transB = 1>(hidden_on, classifier, classifier_bias)
}"""
SHAPES = {
    "stem": (7, 3, 3, 3),
    "stem_bias": (7,),
    "expand": (9, 7, 1, 1),
    "expand_bias": (9,),
    "depthwise": (9, 1, 3, 3),
    "project": (7, 9, 1, 1),
    "project_bias": (7,),
    "hidden": (5, 7),
    "hidden_bias": (5,),
    "classifier": (5, 5),
    "classifier_bias": (5,),
}
LAYERS = ("stem", "expand", "depthwise", "project", "hidden", "classifier")
SUFFIX = "_quantized"

RATES = {"int16": {"default": 5e8}, "int8": {"default": 1e9, "depthwise": 4e8}, "int4": {"default": 3e9}}
DEVICE = Device(
    "board",
    macs_per_s={"float32": {"default": 2e8}, **RATES},
    memory_bandwidth_bytes_per_s=3e8,
    kernel_overhead_us={"default": 2.0, "elementwise": 1.0},
    run_overhead_us=7.0,
)
DEVICES = {
    "plain": DEVICE,
    "flash": replace(
        DEVICE, flash_bandwidth_bytes_per_s=4e7, bound="sum", active_power_mw=40.0, efficiency=0.7
    ),
    "asic": replace(
        DEVICE,
        op_energy=OpEnergy(2.0, 2**18),
        deployment=Deployment(
            weights="ram", order="file", alignment_bytes=16, overhead_bytes=1000, channel_overhead_bytes=3
        ),
    ),
    "streams": replace(
        DEVICE, deployment=Deployment(weights="stream", in_place=("elementwise", "depthwise"))
    ),
}


@cache
def network():
    random = np.random.default_rng(3)
    stored = {name: random.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    return model_from_text(TEXT, stored | {"axes": np.asarray([2, 3], np.int64)})


@cache
def quantized(weight_bits, activation_bits, granularity="channel"):
    """The graph of the file that the stage writes."""
    context = StageContext(noise_split((3, 8, 8), 4), Cache())
    values = {
        "weight_bits": dict(zip(LAYERS, weight_bits, strict=True)),
        "activation_bits": activation_bits,
        "granularity": granularity,
        "calibration_images": 4,
    }
    return op_graph(QuantizeStage().apply(network(), values, context))


def widths(choices):
    return st.lists(st.sampled_from(choices), min_size=len(LAYERS), max_size=len(LAYERS)).map(tuple)


def test_layers_are_the_quantized_weights_in_graph_order():
    assert layers_of(quantized((8,) * 6, 8)) == tuple(name + SUFFIX for name in LAYERS)
    assert layers_of(op_graph(network())) == ()


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(widths((4, 8)), widths((4, 8)), st.sampled_from([8, 16]), st.sampled_from(["channel", "tensor"]))
def test_other_widths_give_the_graph_of_the_file_that_has_them(known, wanted, activation_bits, granularity):
    base = quantized(known, 8, granularity)
    assert with_bits(base, wanted, [activation_bits] * 6) == quantized(wanted, activation_bits, granularity)


def test_with_the_same_widths_nothing_changes():
    graph = quantized((8, 4, 8, 4, 8, 4), 16)
    assert with_bits(graph, (8, 4, 8, 4, 8, 4), (16,) * 6) == graph


def expected(graph, device):
    memory, latency_ms = plan_memory(graph, device.deployment), roofline(graph, device).latency_ms
    found = {
        "latency_ms": latency_ms,
        "energy_uj": energy_uj(graph, device, latency_ms),
        "peak_activation_bytes": memory.peak_activation_bytes,
        "peak_sram_bytes": memory.peak_sram_bytes,
        "weight_bytes": graph.weight_bytes,
        "flash_bytes": memory.flash_bytes,
    }
    return {cost: value for cost, value in found.items() if value is not None}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(widths((4, 8)), min_size=1, max_size=4), st.sampled_from([8, 16]))
def test_costs_are_those_of_the_quantized_files(candidates, activation_bits):
    skeleton = Skeleton(quantized((8,) * 6, 8))
    costs = skeleton.costs(candidates, np.full((len(candidates), 6), activation_bits), DEVICES)
    for row, weight_bits in enumerate(candidates):
        graph = quantized(weight_bits, activation_bits)
        for name, device in DEVICES.items():
            assert {cost: values[row] for cost, values in costs[name].items()} == pytest.approx(
                expected(graph, device), rel=1e-12
            )
            sizes = [cost for cost in costs[name] if cost.endswith("_bytes")]
            assert all(costs[name][cost][row] == expected(graph, device)[cost] for cost in sizes)


@given(st.lists(st.tuples(widths((2, 4, 8)), widths((4, 8, 16))), max_size=5))
def test_costs_are_those_of_the_graphs_with_mixed_activations(candidates):
    graph = quantized((8,) * 6, 8)
    bits = np.reshape([w for w, _ in candidates], (-1, 6)), np.reshape([a for _, a in candidates], (-1, 6))
    costs = Skeleton(graph).costs(bits[0].astype(int), bits[1].astype(int), DEVICES)
    for row, candidate in enumerate(candidates):
        for name, device in DEVICES.items():
            found = {cost: values[row] for cost, values in costs[name].items()}
            assert found == pytest.approx(expected(with_bits(graph, *candidate), device), rel=1e-12)
    assert all(len(values) == len(candidates) for found in costs.values() for values in found.values())


def test_layers_kept_in_floating_point_stay_so():
    context = StageContext(noise_split((3, 8, 8), 4), Cache())
    common = {"keep_float": ("expand", "hidden"), "calibration_images": 4, "activation_bits": 8}
    files = {
        bits: op_graph(QuantizeStage().apply(network(), {**common, "weight_bits": bits}, context))
        for bits in (4, 8)
    }
    assert layers_of(files[8]) == tuple(
        f"{name}{SUFFIX}" for name in LAYERS if name not in common["keep_float"]
    )
    assert {k.dtype for k in files[8].kernels if k.macs} == {"float32", "int8"}
    assert with_bits(files[8], [4] * 4, [8] * 4) == files[4]


def test_the_widest_reader_decides_a_tensor():
    graph = quantized((8,) * 6, 8)
    by_name = {k.name: k for k in with_bits(graph, (8,) * 6, (8, 16, 8, 8, 8, 8)).kernels}
    expand = next(k for k in by_name.values() if k.weight == "expand_quantized")
    assert (expand.activation_bits, expand.dtype) == (16, "int16")
    added = next(k for k in by_name.values() if k.op == "Add")
    assert added.activation_bits == 16  # reads the same tensor as `expand`, so it is as wide
    stem = next(k for k in by_name.values() if k.weight == "stem_quantized")
    assert (stem.activation_bits, stem.output_bytes) == (8, 2 * 7 * 64)


def test_further_costs_are_sums_over_kernels():
    graph = quantized((8,) * 6, 8)
    hook = {
        "bit_operations": lambda kernel, device: kernel.macs * kernel.weight_bits * kernel.activation_bits
    }
    bits = [[8] * 6, [4] * 6]
    found = Skeleton(graph).costs(bits, np.full((2, 6), 8), {"board": DEVICE}, hook)["board"][
        "bit_operations"
    ]
    assert found[0] == 2 * found[1] == sum(hook["bit_operations"](k, DEVICE) for k in graph.kernels)


def test_what_a_device_cannot_run_has_no_latency():
    device = replace(DEVICE, macs_per_s={"float32": {"default": 1e8}, "int8": {"default": 1e9}})
    bits = np.full((2, 6), 8)
    bits[1, 2] = 16
    found = Skeleton(quantized((8,) * 6, 8)).costs(np.full((2, 6), 8), bits, {"board": device})["board"]
    assert np.isnan(found["latency_ms"]).tolist() == [False, True]
    assert (found["weight_bytes"] > 0).all()


@given(st.lists(st.tuples(widths((4, 8)), widths((8, 16))), min_size=1, max_size=4))
def test_memory_can_be_planned_for_each(candidates):
    deployments = {
        "greedy": Deployment(
            arena="greedy", alignment_bytes=16, overhead_bytes=100, kernel_overhead_bytes=10
        ),
        "patches": Deployment(patches=2, weights="ram"),
        "streams": Deployment(arena="greedy", weights="stream", in_place=("elementwise", "depthwise")),
    }
    devices = {name: replace(DEVICE, deployment=deployment) for name, deployment in deployments.items()}
    graph, (weight_bits, activation_bits) = quantized((8,) * 6, 8), zip(*candidates, strict=True)
    costs = Skeleton(graph).costs(weight_bits, activation_bits, devices, plan_each=True)
    for row, candidate in enumerate(candidates):
        for name, deployment in deployments.items():
            plan = plan_memory(with_bits(graph, *candidate), deployment)
            assert costs[name]["peak_activation_bytes"][row] == plan.peak_activation_bytes
            assert costs[name]["peak_sram_bytes"][row] == plan.peak_sram_bytes


def test_a_learned_residual_sees_whole_networks(monkeypatch):
    class HalfIfAnyLayerIsNarrow:
        def corrected_ms(self, kernels, kernel_ms):
            return kernel_ms / (2 if any(k.dtype == "int4" for k in kernels) else 1)

    monkeypatch.setattr(
        "evaluators.cost.latency.residual.load_residual", lambda path: HalfIfAnyLayerIsNarrow()
    )
    monkeypatch.setattr(
        "evaluators.cost.batch.candidates.load_residual", lambda path: HalfIfAnyLayerIsNarrow()
    )
    device, graph = replace(DEVICE, residual="some.json"), quantized((8,) * 6, 8)
    bits = [[8] * 6, [4] + [8] * 5, [8] * 6]
    found = Skeleton(graph).costs(bits, np.full((3, 6), 8), {"board": device})["board"]["latency_ms"]
    single = [roofline(with_bits(graph, row, [8] * 6), device).latency_ms for row in bits]
    assert found == pytest.approx(single, rel=1e-12)
    assert found[1] < 0.9 * found[0]


def test_costs_that_no_formula_gives_are_absent():
    devices = {
        "timed": Device("timed", measured=True),
        "fpga": Device("fpga", fabric=FpgaDevice(70_000, 360, 400, 2e8)),
        "patches": replace(DEVICE, deployment=Deployment(patches=3)),
    }
    found = Skeleton(quantized((8,) * 6, 8)).costs([[8] * 6], [[8] * 6], devices)
    memory = {"peak_activation_bytes", "peak_sram_bytes", "weight_bytes", "flash_bytes"}
    assert set(found["timed"]) == set(found["fpga"]) == memory
    assert set(found["patches"]) == {"latency_ms", "weight_bytes", "flash_bytes"}


@pytest.mark.parametrize(
    ("weight_bits", "message"),
    [
        ([[8] * 5], r"weight_bits has the shape \(1, 5\); it must be \(n_candidates, 6\)"),
        ([8] * 6, r"shape \(6,\)"),
        ([[8, 8, 8, 8, 8, 32]], "weight_bits holds 32; bit widths are 1 to 16"),
        ([[8, 8, 8, 8, 8, 4.5]], "weight_bits holds 4.5"),
    ],
)
def test_wrong_widths_are_told(weight_bits, message):
    with pytest.raises(EvaluationError, match=message):
        Skeleton(quantized((8,) * 6, 8)).costs(weight_bits, [[8] * 6], {})


def test_as_many_candidates_in_both():
    with pytest.raises(EvaluationError, match=r"2 candidates.* 1"):
        Skeleton(quantized((8,) * 6, 8)).costs([[8] * 6] * 2, [[8] * 6], {})


def test_graph_without_widths_is_told():
    with pytest.raises(EvaluationError, match="does not say how wide 'features' is"):
        Skeleton(replace(op_graph(tiny_model(weight_bits=8)), widths={}))


def test_wrong_widths_of_one_graph_are_told():
    graph = op_graph(tiny_model(weight_bits=8))
    with pytest.raises(
        EvaluationError, match="weight_bits has 2 entries, but the graph has 1 quantized layers"
    ):
        with_bits(graph, [8, 8], [8])
    with pytest.raises(EvaluationError, match="activation_bits of 'kernel_quantized' must be 1 to 16"):
        with_bits(graph, [8], [0])
