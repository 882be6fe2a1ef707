"""Energy of one inference on a device."""

from collections.abc import Sequence

from evaluators.cost.energy.operations import FloatDType, kernel_energy_pj
from evaluators.cost.graph import Kernel, OpGraph
from evaluators.devices.device import Device, OpEnergy

_PJ_A_UJ = 1e6
_FLOATS: dict[str, FloatDType] = {"float32": "float32", "float16": "float16"}


def energy_uj(graph: OpGraph, device: Device, latency_ms: float | None) -> float | None:
    """Returns the energy of one run in microjoules; None if the profile has no figures for it.

    If the profile states the active power, energy is power times latency: on microcontrollers the power
    hardly depends on the network, so this predicts measured energies within a few per cent. Otherwise
    (dedicated hardware) it is the sum of the energies of all operations and memory accesses (Horowitz 2014;
    see `operations`).

    Args:
        graph: Kernels of the network.
        device: The device.
        latency_ms: Latency of the network on the device; None if it is not known.
    """
    if device.active_power_mw is not None:
        return None if latency_ms is None else device.active_power_mw * latency_ms  # mW x ms = uJ
    return None if device.op_energy is None else op_energy_uj(graph.kernels, device.op_energy)


def op_energy_uj(kernels: Sequence[Kernel], profile: OpEnergy) -> float:
    """Returns the energy of the kernels' operations and memory accesses in microjoules."""
    return profile.scale * sum(_kernel_pj(kernel, profile) for kernel in kernels) / _PJ_A_UJ


def _kernel_pj(kernel: Kernel, profile: OpEnergy) -> float:
    from_dram = profile.weights_from == "dram"
    activations = kernel.input_bytes + kernel.output_bytes
    return kernel_energy_pj(
        kernel.macs,
        kernel.weight_bits or kernel.activation_bits,
        kernel.activation_bits,
        float_dtype=_FLOATS.get(kernel.dtype),
        on_chip_bytes=activations + (0 if from_dram else kernel.weight_bytes),
        on_chip_memory_bytes=profile.on_chip_bytes,
        dram_bytes=kernel.weight_bytes if from_dram else 0,
    ).total_pj
