"""Candidates that share one graph, as versions of its kernels."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evaluators.cost.batch.memory import Versions, live_bytes, total
from evaluators.cost.energy import op_energy_uj
from evaluators.cost.graph import Kernel
from evaluators.cost.graph.bits import WIDTHS, BitWidths
from evaluators.cost.latency.residual import load_residual
from evaluators.cost.latency.roofline import roofline
from evaluators.cost.memory import plan_memory, runtime_bytes
from evaluators.devices.device import Deployment, Device

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Candidates:
    """Works out costs of all candidates together.

    Args:
        widths: What follows from bit widths in the graph that they share.
        weight_bits: `(n_candidates, n_layers)`.
        activation_bits: `(n_candidates, n_layers)`.

    Attributes:
        kernels: Every version of every kernel, those of one kernel together.
    """

    def __init__(self, widths: BitWidths, weight_bits: Ints, activation_bits: Ints) -> None:
        self._widths, self._graph = widths, widths.graph
        self._weight_bits, self._activation_bits = weight_bits, activation_bits
        self._n = len(weight_bits)
        bits = _tensor_bits(widths, weight_bits, activation_bits)
        self._versions = [_versions(widths, kernel, bits, self._n) for kernel in self._graph.kernels]
        self.kernels = [kernel for versions in self._versions for kernel in versions.kernels]
        self._firsts = np.cumsum([0, *(len(versions.kernels) for versions in self._versions)])[:-1]
        sizes = {name: width.n_bytes(bits[name]) for name, width in self._graph.widths.items()}
        stored = [size for name, size in sizes.items() if name not in self._graph.tensor_bytes]
        self._tensor_bytes = {name: sizes[name] for name in self._graph.tensor_bytes}
        self._weight_bytes = self._wide(total(stored))
        self._peaks: dict[tuple[Deployment, bool], tuple[Ints, Ints]] = {}

    def costs(self, device: Device, plan_each: bool) -> dict[str, Ints | Floats]:
        """Returns cost to its values on one device; see `Skeleton.costs`."""
        found: dict[str, Ints | Floats] = {}
        if not device.measured and device.fabric is None:
            latency_ms = self._latency_ms(device)
            found["latency_ms"] = latency_ms
            if device.active_power_mw is not None:
                found["energy_uj"] = device.active_power_mw * latency_ms
            elif device.op_energy is not None:
                profile = device.op_energy
                found["energy_uj"] = self.total([op_energy_uj([k], profile) for k in self.kernels])
        return found | self._sizes(device.deployment, plan_each)

    def total(self, of_versions: Sequence[float] | Floats) -> Floats:
        """Sums a value of every version over each candidate's kernels, in their order."""
        values = np.asarray(of_versions, np.float64)
        total = np.zeros(self._n)
        for versions, first in zip(self._versions, self._firsts, strict=True):
            total += values[first + versions.chosen]
        return total

    def _latency_ms(self, device: Device) -> Floats:
        every = replace(self._graph, kernels=tuple(self.kernels))
        found = roofline(every, replace(device, residual=None))
        lacking = [bool(k.macs) and device.throughput(k.dtype, k.kind) is None for k in self.kernels]
        kernel_ms = np.where(lacking, np.nan, found.kernel_ms)
        total = (
            self.total(kernel_ms) if device.residual is None else self._corrected(kernel_ms, device.residual)
        )
        return total + found.run_overhead_ms

    def _corrected(self, kernel_ms: Floats, residual: str) -> Floats:
        """Latency where a learned residual corrects it: that may look at the whole network, so one at a time."""
        known = load_residual(residual)
        chosen = np.stack(
            [v.chosen + first for v, first in zip(self._versions, self._firsts, strict=True)], axis=1
        )
        distinct, place = np.unique(chosen, axis=0, return_inverse=True)
        found = [
            known.corrected_ms([self.kernels[i] for i in row], kernel_ms[row]).sum()
            if np.isfinite(kernel_ms[row]).all()
            else np.nan
            for row in distinct
        ]
        return np.asarray(found, np.float64)[place]

    def _sizes(self, deployment: Deployment, plan_each: bool) -> dict[str, Ints]:
        one_memory = deployment.weights == "ram"
        found = {"weight_bytes": self._weight_bytes, "flash_bytes": self._weight_bytes * (not one_memory)}
        if deployment.patches > 1 and not plan_each:
            return found
        activations, everything = self._peaks_of(deployment, plan_each)
        weights = self._weight_bytes if one_memory else 0
        peak_sram = everything + weights + runtime_bytes(self._graph, deployment)
        return found | {"peak_activation_bytes": activations, "peak_sram_bytes": peak_sram}

    def _peaks_of(self, deployment: Deployment, plan_each: bool) -> tuple[Ints, Ints]:
        """Peaks without and with streamed weights; devices often share them."""
        bare = replace(deployment, overhead_bytes=0, kernel_overhead_bytes=0, channel_overhead_bytes=0)
        if bare.weights == "ram":  # as for flash, what is live; weights come on top
            bare = replace(bare, weights="flash")
        key = (bare, plan_each)
        if key not in self._peaks:
            peaks = self._planned(bare) if plan_each else self._live(bare)
            self._peaks[key] = (self._wide(peaks[0]), self._wide(peaks[1]))
        return self._peaks[key]

    def _live(self, deployment: Deployment) -> tuple[Ints, Ints]:
        return live_bytes(self._graph, self._versions, self._tensor_bytes, deployment)

    def _planned(self, deployment: Deployment) -> tuple[Ints, Ints]:
        columns = [self._wide(size) for size in self._tensor_bytes.values()]
        if deployment.weights == "stream":
            columns += list(self._weight_bits.T)
        _, rows, place = np.unique(np.stack(columns, axis=1), axis=0, return_index=True, return_inverse=True)
        bits = ((self._weight_bits[row].tolist(), self._activation_bits[row].tolist()) for row in rows)
        plans = [plan_memory(self._widths.graph_of(*widths), deployment) for widths in bits]
        activations = np.asarray([plan.peak_activation_bytes for plan in plans], np.int64)
        everything = np.asarray([plan.peak_sram_bytes for plan in plans], np.int64)
        return activations[place], everything[place]

    def _wide(self, values: Ints) -> Ints:
        return values + np.zeros(self._n, np.int64)


def _tensor_bits(widths: BitWidths, weight_bits: Ints, activation_bits: Ints) -> dict[str, Ints]:
    """Bits of every tensor, `(n_candidates,)`, or `(1,)` where they are the same for all.

    Tensors whose widths one thing decides share one array.
    """
    shared: dict[object, Ints] = {}
    found = {}
    for tensor, width in widths.graph.widths.items():
        layer, deciders = widths.weight_layer(tensor), widths.activation_layers(tensor)
        key = ("weight", layer) if layer is not None else deciders or width.bits
        if key not in shared:
            if layer is not None:
                shared[key] = weight_bits[:, layer]
            elif deciders:
                shared[key] = activation_bits[:, deciders].max(axis=1)
            else:
                shared[key] = np.full(1, width.bits, np.int64)
        found[tensor] = shared[key]
    return found


def _versions(widths: BitWidths, kernel: Kernel, bits: Mapping[str, Ints], n: int) -> Versions:
    """Finds the combinations of widths that the candidates bring to one kernel."""
    touched = {name: bits[name] for name in widths.touched(kernel)}
    varying = {id(array): array for array in touched.values() if array.size > 1}
    chosen, rows = np.zeros(n, np.int64), np.zeros(min(n, 1), np.int64)
    for array in varying.values():
        _, rows, chosen = np.unique(chosen * (WIDTHS[-1] + 1) + array, return_index=True, return_inverse=True)
    of_rows = [{name: int(a[row if a.size > 1 else 0]) for name, a in touched.items()} for row in rows]
    return Versions(tuple(widths.kernel_of(kernel, found) for found in of_rows), chosen)
