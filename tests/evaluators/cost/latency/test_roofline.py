from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.cost.graph import Kernel, OpGraph, op_graph
from evaluators.cost.latency.roofline import roofline
from evaluators.devices.device import Device
from evaluators.testing import tiny_model


def kernel(macs=0, dtype="int8", weight_bytes=0, activation_bytes=0):
    return Kernel("k", "Conv", "conv", dtype, macs, weight_bytes, ("a",), ("b",), activation_bytes, 0)


def graph(*kernels):
    return OpGraph(kernels, ("a",), ("b",), {"a": 0, "b": 0}, 0, {})


BOARD = Device(
    "board",
    runtime="r",
    macs_per_s={"int8": {"default": 1e6}},
    memory_bandwidth_bytes_per_s=1e6,
    kernel_overhead_us={"default": 100},
)


def test_each_kernel_takes_the_longer_of_compute_and_memory():
    modelled = roofline(
        graph(kernel(3000, activation_bytes=1000), kernel(1000, activation_bytes=4000)), BOARD
    )
    assert modelled.latency_ms == pytest.approx(3 + 4 + 2 * 0.1)
    assert modelled.compute_bound == pytest.approx(3 / 7)
    assert modelled.left_out == ()


def test_weights_in_flash_are_a_separate_bound():
    flash = replace(BOARD, flash_bandwidth_bytes_per_s=1e5, kernel_overhead_us={})
    modelled = roofline(graph(kernel(3000, weight_bytes=1000, activation_bytes=5000)), flash)
    assert modelled.latency_ms == pytest.approx(10)
    shared = replace(flash, flash_bandwidth_bytes_per_s=None)
    modelled = roofline(graph(kernel(3000, weight_bytes=1000, activation_bytes=5000)), shared)
    assert modelled.latency_ms == pytest.approx(6)


def test_missing_figures_are_reported_and_their_terms_omitted():
    bare = Device("bare", runtime="r", macs_per_s={"int8": {"default": 1e6}})
    modelled = roofline(graph(kernel(1000, activation_bytes=10**9)), bare)
    assert modelled.latency_ms == pytest.approx(1)
    assert modelled.left_out == ("memory_bandwidth_bytes_per_s", "kernel_overhead_us")


def test_with_kernels_that_the_device_cannot_run_there_is_no_latency():
    modelled = roofline(graph(kernel(1, "float32"), kernel(1), kernel(0, "float32")), BOARD)
    assert modelled.latency_ms is None
    assert modelled.cannot_run == {"float32": 1}  # without MACs a kernel only moves bytes


def test_four_bit_weights_run_as_int8_unless_the_device_supports_them():
    four_bit = graph(kernel(1000, "int4"))
    assert roofline(four_bit, BOARD).latency_ms == pytest.approx(1.1)
    fast = replace(BOARD, macs_per_s={"int8": {"default": 1e6}, "int4": {"default": 2e6}})
    assert roofline(four_bit, fast).latency_ms == pytest.approx(0.6)


def test_kernel_classes_have_their_own_throughput_and_overhead():
    board = Device(
        "b",
        runtime="r",
        macs_per_s={"int8": {"conv": 1e6, "default": 5e5}},
        memory_bandwidth_bytes_per_s=1e6,
        kernel_overhead_us={"depthwise": 300, "default": 100},
        run_overhead_us=50,
    )
    two = graph(
        kernel(1000, activation_bytes=500), replace(kernel(1000, activation_bytes=500), kind="depthwise")
    )
    assert roofline(two, board).kernel_ms.tolist() == pytest.approx([1.1, 2.3])
    assert roofline(two, board).latency_ms == pytest.approx(3.45)
    summed = roofline(two, replace(board, bound="sum"))
    assert summed.kernel_ms.tolist() == pytest.approx([1.6, 2.8])


@given(st.floats(1e3, 1e12), st.floats(1, 100), st.floats(0.01, 1))
def test_a_faster_device_is_never_slower(throughput, factor, efficiency):
    network = op_graph(tiny_model())
    slow = Device(
        "s", runtime="r", macs_per_s={"float32": {"default": throughput}}, memory_bandwidth_bytes_per_s=1e8
    )
    fast = replace(slow, macs_per_s={"float32": {"default": throughput * factor}})
    assert roofline(network, fast).latency_ms <= roofline(network, slow).latency_ms
    assert (
        roofline(network, slow).latency_ms
        <= roofline(network, replace(slow, efficiency=efficiency)).latency_ms
    )
