"""Latency by the roofline model, kernel by kernel."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.cost.graph import Kernel, OpGraph
from evaluators.devices.device import Device

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Roofline:
    """Modelled times of the kernels of one network on one device.

    Attributes:
        compute_ms: Time of each kernel's multiply-accumulates, `(n_kernels,)`.
        memory_ms: Time of each kernel's memory accesses, `(n_kernels,)`.
        kernel_ms: Time of each kernel: both combined by the profile's `bound`, plus overhead, and corrected
            by its residual, `(n_kernels,)`.
        run_overhead_ms: Constant time of a run besides its kernels.
        cannot_run: Number of kernels by dtype for which the device has no throughput.
        left_out: Optional figures that the profile lacks, so that their terms are missing. The latency is a
            lower bound then, unless the throughput was fitted to whole networks and so includes them.
    """

    compute_ms: Floats
    memory_ms: Floats
    kernel_ms: Floats
    run_overhead_ms: float
    cannot_run: Mapping[str, int]
    left_out: tuple[str, ...]

    @property
    def latency_ms(self) -> float | None:
        """Latency of a run in ms; None if the device cannot run some kernel."""
        return None if self.cannot_run else float(self.kernel_ms.sum()) + self.run_overhead_ms

    @property
    def compute_bound(self) -> float:
        """Share of the kernels' time (without overhead) that is compute-bound, 0 to 1."""
        bound = np.maximum(self.compute_ms, self.memory_ms).sum()
        by_macs = self.compute_ms[self.compute_ms >= self.memory_ms].sum()
        return float(by_macs / bound) if bound else 0.0


def roofline(graph: OpGraph, device: Device) -> Roofline:
    """Models each kernel's time as max(MACs / throughput, bytes / bandwidth) + overhead, or their sum.

    Williams, Waterman, Patterson 2009, "Roofline: An Insightful Visual Performance Model for Multicore
    Architectures", CACM 52(4): a kernel runs at the lower of its compute and its memory bound. Weights in a
    separate memory (flash) are a third bound. The sum (`bound: sum`) is for profiles that were fitted by
    linear least squares. A learned residual of the profile corrects the kernels' times.
    """
    kernels = graph.kernels
    compute = np.array([_compute_s(k, device) for k in kernels], dtype=np.float64) * 1e3
    memory = np.array([_memory_s(k, device) for k in kernels], dtype=np.float64) * 1e3
    overhead = np.array([device.overhead_us(k.kind) for k in kernels], dtype=np.float64) * 1e-3
    combined = np.maximum(compute, memory) if device.bound == "max" else compute + memory
    cannot_run = Counter(k.dtype for k in kernels if k.macs and device.throughput(k.dtype, k.kind) is None)
    optional = ("memory_bandwidth_bytes_per_s", "kernel_overhead_us")
    return Roofline(
        compute,
        memory,
        _corrected(graph, device, combined + overhead),
        device.run_overhead_us * 1e-3,
        {str(dtype): count for dtype, count in cannot_run.items()},
        tuple(figure for figure in optional if not getattr(device, figure)),
    )


def _corrected(graph: OpGraph, device: Device, kernel_ms: Floats) -> Floats:
    if device.residual is None:
        return kernel_ms
    from evaluators.cost.latency.residual import load_residual

    return load_residual(device.residual).corrected_ms(graph.kernels, kernel_ms)


def _compute_s(kernel: Kernel, device: Device) -> float:
    throughput = device.throughput(kernel.dtype, kernel.kind)
    return kernel.macs / throughput if kernel.macs and throughput else 0.0


def _memory_s(kernel: Kernel, device: Device) -> float:
    activations = kernel.input_bytes + kernel.output_bytes
    ram, flash = device.memory_bandwidth_bytes_per_s, device.flash_bandwidth_bytes_per_s
    if flash is not None:
        return max(kernel.weight_bytes / flash, activations / ram if ram else 0.0)
    return (activations + kernel.weight_bytes) / ram if ram else 0.0
