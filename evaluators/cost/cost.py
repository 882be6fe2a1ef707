"""Modelled costs on every device of the study, from one analysis of the ONNX file."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.base import Evaluation, EvaluationContext, Evaluator, Measurement, Outline
from evaluators.column import Column
from evaluators.cost.energy import energy_uj
from evaluators.cost.graph import OpGraph, op_graph
from evaluators.cost.graph.dead_channels import without_dead_channels
from evaluators.cost.graph.formats import UNSUPPORTED, unsupported, why_unsupported
from evaluators.cost.graph.runtime_graph import runtime_graph
from evaluators.cost.language.window_cache import WindowCache, window_cache
from evaluators.cost.latency.fabric.estimate import fabric_estimate
from evaluators.cost.latency.roofline import Roofline, roofline
from evaluators.cost.memory import MemoryPlan, plan_memory
from evaluators.devices.device import Device
from spaces.quantization.formats.stored import simulated_layers, simulated_text
from spaces.stages.artifact import Artifact


class CostEvaluator(Evaluator):
    """Models the costs of a network on each device, as far as the device's profile has the figures.

    Yields `latency_ms` (not where it is timed), `energy_uj`, `peak_activation_bytes`, `peak_sram_bytes`
    (activations, the runtime's own structures, and weights that are kept in RAM), `weight_bytes`, `total_bytes`
    (weights, activations at their peak, and of causal attention the keys and values of the window's tokens), `flash_bytes`, and on FPGAs `luts` and `dsps`. Where the profile says
    which formats the runtime takes, `unsupported_layers` is the number of layers in others; with any, there is no
    latency and no energy. `<cost>_low` and `<cost>_high` are error bars: 8 of 10
    measurements that the profile was compared with lay between them. `details["because"]` gives the reason
    why a latency is absent.
    """

    name: ClassVar[str] = "cost"
    structural: ClassVar[bool] = True

    def follows_structure(self, context: EvaluationContext) -> bool:
        """False if a device's runtime removes dead channels, because these depend on the weights."""
        return not any(device.removes_dead_channels for device in context.devices.values())

    def evaluate(self, artifact: Artifact, context: EvaluationContext) -> Evaluation:
        """Returns the costs of one ONNX artifact on `context.devices`.

        Raises:
            EvaluationError: The shapes of the model cannot be inferred.
        """
        graphs, simulated = Graphs(artifact), simulated_layers(artifact.onnx_bytes)
        cache = window_cache(artifact)
        by_device = [DeviceCosts(graphs.on(d), d, simulated, cache) for d in context.devices.values()]
        because = {column: why for costs in by_device for column, why in costs.because().items()}
        latencies = {costs.device.name: costs.explained() for costs in by_device if not costs.device.measured}
        return Evaluation(
            tuple(m for costs in by_device for m in costs.measurements()),
            {
                "cost": {**_summary(graphs.common), **_of_cache(cache), "latency": latencies},
                "because": because,
            },
        )

    def columns(self, outline: Outline) -> frozenset[str]:
        """Returns the columns of every device, as far as its profile has the figures."""
        devices = outline.devices.values()
        return frozenset(str(Column.of(cost, d.name)) for d in devices for cost in _costs_of(d))

    def possible(self, context: EvaluationContext) -> frozenset[str]:
        """Returns the columns that may be absent for the uncompressed model and present for a compressed one.

        A device may lack a throughput for the uncompressed model's dtype and have one for int8.
        """
        modelled = [d for d in context.devices.values() if not d.measured]
        names = {d.name: ("latency_ms", "energy_uj") if _has_energy(d) else ("latency_ms",) for d in modelled}
        return frozenset(str(Column.of(cost, device)) for device, costs in names.items() for cost in costs)


class Graphs:
    """The kernels of one ONNX file under each runtime's fusion rules; each set of rules is analysed once."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self._cache: dict[tuple[str, bool], OpGraph] = {}

    @property
    def common(self) -> OpGraph:
        """The kernels under the fusion rules that runtimes share."""
        return self._by("common", False)

    def on(self, device: Device) -> OpGraph:
        """Returns the kernels under the fusion rules of the device's runtime."""
        return self._by(device.fusion, device.removes_dead_channels)

    def _by(self, fusion: Literal["common", "onnxruntime", "eager"], removes_dead: bool) -> OpGraph:
        key = (fusion, removes_dead)
        if key not in self._cache:
            if removes_dead:
                self._cache[key] = without_dead_channels(self._by(fusion, False), self._artifact)
            elif fusion == "onnxruntime":
                self._cache[key] = runtime_graph(self._artifact)
            else:
                self._cache[key] = op_graph(self._artifact, fusion)
        return self._cache[key]


class DeviceCosts:
    """All costs of one network on one device.

    Args:
        graph: The kernels that the device's runtime executes.
        device: The device.
        simulated: Layers whose weights are decoded floats, with the name of their format.
        cache: Keys and values of a network with causal attention.
    """

    def __init__(
        self,
        graph: OpGraph,
        device: Device,
        simulated: Mapping[str, str] = MappingProxyType({}),
        cache: WindowCache | None = None,
    ) -> None:
        self.graph, self.device = graph, device
        self._simulated, self._cache = simulated, cache
        self._unsupported = unsupported(graph, device)
        self.memory: MemoryPlan = plan_memory(graph, device.deployment)
        self._fabric = fabric_estimate(graph, device)
        self._times: Roofline | None = None
        if not device.measured and device.fabric is None:
            self._times = roofline(graph, device)

    @property
    def latency_ms(self) -> float | None:
        """Modelled latency of one run in ms; None if it is timed, or if the device cannot run the network."""
        if self._simulated or self._unsupported:
            return None
        if self._fabric is not None:
            return self._fabric.latency_ms
        kernel_ms = self.kernel_ms()
        if self._times is None or kernel_ms is None:
            return None
        return float(kernel_ms.sum()) + self._times.run_overhead_ms

    def kernel_ms(self) -> NDArray[np.float64] | None:
        """Returns the modelled time of each kernel in ms, `(n_kernels,)`; None where there is no roofline.

        In patch-based inference, kernels recompute the halo that neighbouring patches share, so their time is
        scaled.
        """
        if self._times is None or self._times.cannot_run:
            return None
        stage = self.memory.patches
        if stage is None:
            return self._times.kernel_ms
        work = dict(zip(stage.kernels, stage.work, strict=True))
        scale: NDArray[np.float64] = np.array([work.get(k.name, 1.0) for k in self.graph.kernels])
        return self._times.kernel_ms * scale

    @property
    def energy_uj(self) -> float | None:
        """Modelled energy of one run in uJ; None if the profile lacks the figures or it is measured."""
        if self.device.measured or self._simulated or self._unsupported:
            return None
        return energy_uj(self.graph, self.device, self.latency_ms)

    def measurements(self) -> Iterator[Measurement]:
        """Yields the costs as measurements, with their error bars."""
        memory, device, fabric = self.memory, self.device, self._fabric
        yield self._measurement("peak_activation_bytes", memory.peak_activation_bytes, "bytes")
        yield self._measurement("weight_bytes", self.graph.weight_bytes, "bytes")
        if device.weight_formats or device.activation_formats:
            yield self._measurement(UNSUPPORTED, len(self._unsupported) + len(self._simulated), "layers")
        cached = 0 if self._cache is None else self._cache.n_bytes
        total = self.graph.weight_bytes + memory.peak_activation_bytes + cached
        yield self._measurement("total_bytes", total, "bytes")
        if (
            device.measured
        ):  # this machine: its memory is no limit, other evaluators measure latency and energy
            return
        yield from self._with_bounds("latency_ms", self.latency_ms, "ms")
        yield from self._with_bounds("energy_uj", self.energy_uj, "uJ")
        yield from self._with_bounds("peak_sram_bytes", memory.peak_sram_bytes, "bytes")
        if device.deployment.weights != "ram":
            yield self._measurement("flash_bytes", memory.flash_bytes, "bytes")
        if fabric is not None and fabric.latency_ms is not None:
            yield self._measurement("luts", fabric.luts, "LUTs")
            yield self._measurement("dsps", fabric.dsps, "DSPs")

    def because(self) -> dict[str, str]:
        """Returns, by column, which layer decides the peak memory, what the total has besides, and why a latency is absent."""
        at = _peak(self.memory)
        reasons = {"peak_sram_bytes": at, "peak_activation_bytes": at} if at else {}
        if self._cache is not None:
            reasons["total_bytes"] = f"{at}; {self._cache}"
        if self.latency_ms is None and not self.device.measured:
            reasons["latency_ms"] = self._why_no_latency()
        if self._unsupported or self._simulated:
            reasons[UNSUPPORTED] = self._why_no_latency()
        return {str(Column.of(cost, self.device.name)): why for cost, why in reasons.items()}

    def explained(self) -> dict[str, Any]:
        """Returns JSON-able details of the latency: the compute-bound share, or why it is absent."""
        if self.latency_ms is None:
            return {"absent_because": self._why_no_latency()}
        if self._times is None:
            return {}
        return {
            "compute_bound_share": round(self._times.compute_bound, 4),
            "left_out": list(self._times.left_out),
        }

    def _why_no_latency(self) -> str:
        if self._simulated:
            return simulated_text(self._simulated)
        if self._unsupported:
            return why_unsupported(self._unsupported, self.device)
        if self._fabric is not None:
            return f"{self.device.name}: {self._fabric.absent_because}"
        lacking = self._times.cannot_run if self._times is not None else {}
        missing = ", ".join(f"{dtype} ({count} kernels)" for dtype, count in lacking.items())
        listed = ", ".join(sorted(self.device.macs_per_s))
        return f"{self.device.name} has no throughput for {missing}; its profile lists {listed}"

    def _with_bounds(self, name: str, value: float | None, unit: str) -> Iterator[Measurement]:
        if value is None:
            return
        yield self._measurement(name, value, unit)
        error = self.device.error.get(name)
        if error is not None:
            # |modelled / measured - 1| <= error, so the measured value lies between these two
            yield self._measurement(f"{name}_low", value / (1 + error), unit)
            yield self._measurement(f"{name}_high", value / max(1 - error, 0.05), unit)

    def _measurement(self, name: str, value: float, unit: str) -> Measurement:
        return Measurement(name, value, unit, "modelled", self.device.name)


def _peak(memory: MemoryPlan) -> str:
    """Names the kernel at the memory peak and the three largest tensors there; empty without kernels."""
    if memory.peak_kernel is None:
        return ""
    largest = sorted(memory.peak_live.items(), key=lambda item: -item[1])[:3]
    tensors = ", ".join(f"{tensor} {n_bytes / 1024:.1f} KiB" for tensor, n_bytes in largest)
    return f"the peak is at layer {memory.peak_kernel}: {tensors}"


def _costs_of(device: Device) -> Iterator[str]:
    """Yields the names of all costs that a device can have."""
    yield from ("peak_activation_bytes", "weight_bytes", "total_bytes")
    if device.weight_formats or device.activation_formats:
        yield UNSUPPORTED
    if device.measured:
        return
    bounded = ["latency_ms", "peak_sram_bytes", *(["energy_uj"] if _has_energy(device) else [])]
    yield from bounded
    yield from (f"{name}_{end}" for name in bounded if name in device.error for end in ("low", "high"))
    if device.deployment.weights != "ram":
        yield "flash_bytes"
    if device.fabric is not None:
        yield from ("luts", "dsps")


def _has_energy(device: Device) -> bool:
    return device.active_power_mw is not None or device.op_energy is not None


def _of_cache(cache: WindowCache | None) -> dict[str, Any]:
    return {} if cache is None else {"kv_cache": asdict(cache)}


def _summary(graph: OpGraph) -> dict[str, Any]:
    by_dtype: dict[str, int] = {}
    for kernel in graph.kernels:
        if kernel.macs:
            by_dtype[kernel.dtype] = by_dtype.get(kernel.dtype, 0) + kernel.macs
    return {
        "macs": graph.macs,
        "macs_by_dtype": by_dtype,
        "kernels": len(graph.kernels),
        "unknown_operators": dict(graph.unknown),
    }
