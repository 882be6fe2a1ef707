"""Latency and resources of a network on an FPGA: one engine per layer, folded until the network fits."""

from dataclasses import dataclass

from evaluators.cost.graph import Kernel, OpGraph
from evaluators.cost.latency.fabric.folding import fold_network
from evaluators.devices.device import Device
from evaluators.devices.fpga import FpgaLayer
from spaces.errors import EvaluationError

_ENGINES = ("conv", "pointwise", "depthwise", "fully_connected")


@dataclass(frozen=True)
class FabricEstimate:
    """Latency and resources of a network on an FPGA, or the reason why it cannot be built.

    Attributes:
        latency_ms: Latency of one frame through all engines; None if the network cannot be built.
        luts: Look-up tables in use.
        dsps: DSP slices in use.
        absent_because: Why the network cannot be built; empty if it can.
    """

    latency_ms: float | None = None
    luts: int = 0
    dsps: int = 0
    absent_because: str = ""


def fabric_estimate(graph: OpGraph, device: Device) -> FabricEstimate | None:
    """Folds the network's layers until they fit the device; None if the device is no FPGA."""
    if device.fabric is None:
        return None
    with_macs = [k for k in graph.kernels if k.macs]
    floats = [k for k in with_macs if k.dtype in ("float32", "float16")]
    if floats:
        return FabricEstimate(
            absent_because=f"{len(floats)} kernels compute on floats, {floats[0].name} first; engines are for integers"
        )
    others = [k for k in with_macs if k.kind not in _ENGINES or k.geometry is None]
    if others:
        return FabricEstimate(absent_because=f"there is no engine for {others[0].op} ({others[0].name})")
    try:
        folded = fold_network([_layer(kernel) for kernel in with_macs], device.fabric)
    except EvaluationError as error:
        return FabricEstimate(absent_because=str(error))
    return FabricEstimate(folded.latency_ms, folded.luts, folded.dsps)


def _layer(kernel: Kernel) -> FpgaLayer:
    geometry = kernel.geometry
    assert geometry is not None
    inputs = geometry.in_channels // geometry.groups
    return FpgaLayer(
        kernel.name,
        mh=geometry.out_channels,
        mw=inputs * geometry.window[0] * geometry.window[1],
        output_pixels=geometry.out_size[0] * geometry.out_size[1],
        weight_bits=kernel.weight_bits,
        activation_bits=kernel.activation_bits,
    )
