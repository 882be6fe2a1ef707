"""Measured networks, and what each holds of everything that costs time on a device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from evaluators.cost.graph import Kernel, OpGraph
from evaluators.devices.device import DType

Array = NDArray[np.float64]
ACTIVATION_BYTE, WEIGHT_BYTE, KERNEL = "activation_byte", "weight_byte", "kernel"
BESIDES_MACS = (ACTIVATION_BYTE, WEIGHT_BYTE, KERNEL)
_BITS: Mapping[DType, int] = {"float32": 32, "float16": 16, "int16": 16, "int8": 8, "int4": 4}


@dataclass(frozen=True)
class MeasuredNetwork:
    """One network as somebody timed it.

    Attributes:
        name: For messages; rows of one name are the same network and are held out together.
        graph: Its kernels.
        latency_ms: Time of one run.
        energy_uj: Energy of one run.
        power_mw: Power while it ran.
        without_dead: Its kernels when constant channels are taken out; None if it has none.
        eager: Its kernels when every node is one, dead branches too; None if nobody asked.
    """

    name: str
    graph: OpGraph
    latency_ms: float
    energy_uj: float | None = None
    power_mw: float | None = None
    without_dead: OpGraph | None = None
    eager: OpGraph | None = None

    @property
    def active_power_mw(self) -> float | None:
        """Power while it ran, from the energy if it is not given (1 uJ / 1 ms = 1 mW)."""
        if self.power_mw is not None:
            return self.power_mw
        return None if self.energy_uj is None else self.energy_uj / self.latency_ms


def recast(graph: OpGraph, dtype: DType) -> OpGraph:
    """Returns the graph of a float model as it runs when every tensor is `dtype`; other dtypes stay as they are.

    Weights of 4 bits come with activations of 8.
    """
    return replace(graph, kernels=tuple(_recast(kernel, dtype) for kernel in graph.kernels))


def _recast(kernel: Kernel, dtype: DType) -> Kernel:
    if kernel.dtype != "float32" or dtype == "float32":
        return kernel
    weight_bits, activation_bits = _BITS[dtype], max(_BITS[dtype], 8)
    return replace(
        kernel,
        dtype=dtype,
        weight_bytes=-(-kernel.weight_bytes * weight_bits // 32),
        input_bytes=kernel.input_bytes * activation_bits // 32,
        output_bytes=kernel.output_bytes * activation_bits // 32,
        weight_bits=weight_bits if kernel.weight_bits else 0,
        activation_bits=activation_bits,
    )


@dataclass(frozen=True)
class Amounts:
    """What networks hold of everything that costs time; `k` kernels at most in one network.

    Attributes:
        columns: Dtype and kernel class of each column of `macs`.
        macs: Multiply-accumulates, `(n, len(columns))`.
        activation_bytes: Read and written by each kernel, `(n, k)`, zero behind the last.
        weight_bytes: Read by each kernel, `(n, k)`.
        kernels: Number of kernels, `(n,)`.
    """

    columns: tuple[tuple[DType, str], ...]
    macs: Array
    activation_bytes: Array
    weight_bytes: Array
    kernels: Array

    def times_ms(self, log_costs: Array) -> Array:
        """Latency of each network, `(n,)`, as `Device` with `bound: sum` models it.

        Args:
            log_costs: Natural logarithm of the ms that one multiply-accumulate of each column costs, then of one
                byte of activations, one of weights, and one kernel; `(len(columns) + 3,)`.
        """
        costs = np.exp(log_costs)
        memory = np.maximum(self.activation_bytes * costs[-3], self.weight_bytes * costs[-2]).sum(axis=-1)
        total: Array = self.macs @ costs[:-3] + memory + self.kernels * costs[-1]
        return total

    def rows(self, chosen: NDArray[np.bool_] | Sequence[int]) -> "Amounts":
        """The same columns for some of the networks."""
        parts = (self.macs, self.activation_bytes, self.weight_bytes, self.kernels)
        return Amounts(self.columns, *(part[np.asarray(chosen)] for part in parts))


def amounts_of(
    graphs: Sequence[OpGraph], columns: Sequence[tuple[DType, str]] | None = None, k: int = 0
) -> Amounts:
    """Counts what networks hold; `columns` and `k` widen the arrays to fit those of other networks."""
    held = [_macs(graph) for graph in graphs]
    names = tuple(sorted({c for each in held for c in each} if columns is None else columns))
    k = max([k, 1, *(len(graph.kernels) for graph in graphs)])
    activations, weights = np.zeros((len(graphs), k)), np.zeros((len(graphs), k))
    for i, graph in enumerate(graphs):
        activations[i, : len(graph.kernels)] = [
            kernel.input_bytes + kernel.output_bytes for kernel in graph.kernels
        ]
        weights[i, : len(graph.kernels)] = [kernel.weight_bytes for kernel in graph.kernels]
    macs = np.array([[each.get(c, 0.0) for c in names] for each in held], float).reshape(
        len(graphs), len(names)
    )
    return Amounts(names, macs, activations, weights, np.array([float(len(g.kernels)) for g in graphs]))


def _macs(graph: OpGraph) -> dict[tuple[DType, str], float]:
    found: dict[tuple[DType, str], float] = {}
    for kernel in graph.kernels:
        if kernel.macs:
            key = (kernel.dtype, str(kernel.kind))
            found[key] = found.get(key, 0.0) + kernel.macs
    return found


@dataclass(frozen=True)
class ReferenceBoard:
    """What operations cost on a (hardware, runtime) pair that was measured, relative to each other.

    Attributes:
        name: The board, so that results of one board and runtime count once.
        runtime: What ran the networks, without its version.
        release: Runtime and version.
        log_costs: Kernel class (a multiply-accumulate of it), `activation_byte`, `weight_byte` or `kernel` to the
            natural logarithm of what one costs; of mean zero, because only ratios carry over to other boards.
        removes_dead_channels: Whether the runtime takes constant channels out.
    """

    name: str
    runtime: str
    release: str
    log_costs: Mapping[str, float] = field(default_factory=dict)
    removes_dead_channels: bool = False
