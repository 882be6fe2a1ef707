"""Latency by the roofline model."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from evaluators.cost.graph import Kernel, OpGraph
from evaluators.devices import Device


@dataclass(frozen=True)
class Roofline:
    """What the model says about one network on one device.

    Attributes:
        latency_ms: Modelled latency of one example; None if the device cannot run some kernel.
        compute_bound: Share of the kernels' time that multiply-accumulates decide, 0 to 1.
        cannot_run: Dtype that the device has no throughput for, to the number of kernels that need it.
        left_out: Figures that the profile lacks, whose term is left out: the latency is a lower bound then, unless
            the throughput was seen on whole networks and so holds them already.
    """

    latency_ms: float | None
    compute_bound: float
    cannot_run: Mapping[str, int]
    left_out: tuple[str, ...]


def roofline(graph: OpGraph, device: Device) -> Roofline:
    """Models latency as a sum over kernels of max(MACs / throughput, bytes / bandwidth) + overhead.

    Williams, Waterman, Patterson 2009, "Roofline: An Insightful Visual Performance Model for Multicore
    Architectures", CACM 52(4): a kernel runs at the lower of its compute and its memory bound. Weights that live in
    another memory (flash) are a third bound.
    """
    cannot_run = Counter(k.dtype for k in graph.kernels if k.macs and device.throughput(k.dtype) is None)
    compute_s = [_compute_s(kernel, device) for kernel in graph.kernels]
    memory_s = [_memory_s(kernel, device) for kernel in graph.kernels]
    overhead_s = (device.kernel_overhead_us or 0.0) * 1e-6 * len(graph.kernels)
    kernels_s = sum(map(max, compute_s, memory_s))
    decided_s = sum(c for c, m in zip(compute_s, memory_s, strict=True) if c >= m)
    optional = ("memory_bandwidth_bytes_per_s", "kernel_overhead_us")
    return Roofline(
        None if cannot_run else 1e3 * (kernels_s + overhead_s),
        decided_s / kernels_s if kernels_s else 0.0,
        {str(dtype): count for dtype, count in cannot_run.items()},
        tuple(figure for figure in optional if getattr(device, figure) is None),
    )


def _compute_s(kernel: Kernel, device: Device) -> float:
    throughput = device.throughput(kernel.dtype)
    return kernel.macs / throughput if kernel.macs and throughput else 0.0


def _memory_s(kernel: Kernel, device: Device) -> float:
    activations = kernel.input_bytes + kernel.output_bytes
    ram, flash = device.memory_bandwidth_bytes_per_s, device.flash_bandwidth_bytes_per_s
    if flash is not None:
        return max(kernel.weight_bytes / flash, activations / ram if ram else 0.0)
    return (activations + kernel.weight_bytes) / ram if ram else 0.0
