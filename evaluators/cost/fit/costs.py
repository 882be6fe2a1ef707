"""Measured networks, and the counts that the latency model multiplies with unit costs."""

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
    """One network with its measurements on one device.

    Attributes:
        name: Name of the network; rows with the same name are held out together in cross-validation.
        graph: Its kernels.
        latency_ms: Latency of one run.
        energy_uj: Energy of one run; None if not measured.
        power_mw: Power during the run; None if not measured.
        without_dead: Its kernels after removal of dead (constant) channels; None if it has none.
        eager: Its kernels in eager execution, one per node and dead branches included; None if not analysed.
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
        """Power during the run, as measured or energy over latency (1 uJ / 1 ms = 1 mW); else None."""
        if self.power_mw is not None:
            return self.power_mw
        return None if self.energy_uj is None else self.energy_uj / self.latency_ms


def recast(graph: OpGraph, dtype: DType) -> OpGraph:
    """Returns the graph with its float32 kernels recast to `dtype`; kernels of other dtypes stay as they are.

    `int4` means 4-bit weights and 8-bit activations.
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
    """Counts that the latency model multiplies with unit costs, for `n` networks of at most `k` kernels each.

    Attributes:
        columns: Dtype and kernel class of each column of `macs`.
        macs: Multiply-accumulates, `(n, len(columns))`.
        activation_bytes: Activation bytes read and written by each kernel, `(n, k)`, padded with zeros.
        weight_bytes: Weight bytes read by each kernel, `(n, k)`, padded with zeros.
        kernels: Number of kernels, `(n,)`.
    """

    columns: tuple[tuple[DType, str], ...]
    macs: Array
    activation_bytes: Array
    weight_bytes: Array
    kernels: Array

    def times_ms(self, log_costs: Array) -> Array:
        """Returns the latency of each network in ms, `(n,)`, by the model of a `Device` with `bound: sum`.

        Args:
            log_costs: Natural logarithms of unit costs in ms, `(len(columns) + 3,)`: of one
                multiply-accumulate of each column, one byte of activations, one byte of weights, and one
                kernel launch.
        """
        costs = np.exp(log_costs)
        memory = np.maximum(self.activation_bytes * costs[-3], self.weight_bytes * costs[-2]).sum(axis=-1)
        total: Array = self.macs @ costs[:-3] + memory + self.kernels * costs[-1]
        return total

    def rows(self, chosen: NDArray[np.bool_] | Sequence[int]) -> "Amounts":
        """Returns the counts of the chosen networks (mask or indices), with the same columns."""
        parts = (self.macs, self.activation_bytes, self.weight_bytes, self.kernels)
        return Amounts(self.columns, *(part[np.asarray(chosen)] for part in parts))


def amounts_of(
    graphs: Sequence[OpGraph], columns: Sequence[tuple[DType, str]] | None = None, k: int = 0
) -> Amounts:
    """Returns the counts of networks; `columns` and `k` make array sizes match other networks'."""
    macs_by_column = [_macs(graph) for graph in graphs]
    names = tuple(sorted({c for each in macs_by_column for c in each} if columns is None else columns))
    k = max([k, 1, *(len(graph.kernels) for graph in graphs)])
    activations, weights = np.zeros((len(graphs), k)), np.zeros((len(graphs), k))
    for i, graph in enumerate(graphs):
        activations[i, : len(graph.kernels)] = [
            kernel.input_bytes + kernel.output_bytes for kernel in graph.kernels
        ]
        weights[i, : len(graph.kernels)] = [kernel.weight_bytes for kernel in graph.kernels]
    macs = np.array([[each.get(c, 0.0) for c in names] for each in macs_by_column], float).reshape(
        len(graphs), len(names)
    )
    return Amounts(names, macs, activations, weights, np.array([float(len(g.kernels)) for g in graphs]))


def _macs(graph: OpGraph) -> dict[tuple[DType, str], float]:
    by_column: dict[tuple[DType, str], float] = {}
    for kernel in graph.kernels:
        if kernel.macs:
            key = (kernel.dtype, str(kernel.kind))
            by_column[key] = by_column.get(key, 0.0) + kernel.macs
    return by_column


@dataclass(frozen=True)
class ReferenceBoard:
    """Relative unit costs of a measured (hardware, runtime) pair: a prior mean for other boards.

    Attributes:
        name: The board; several results of one board and runtime share one prior weight.
        runtime: The runtime, without its version.
        release: Runtime and version.
        log_costs: Natural logarithm of each unit cost: by kernel class (of one multiply-accumulate),
            `activation_byte`, `weight_byte` and `kernel`. Their mean is zero because only ratios carry over
            to other boards.
        removes_dead_channels: Whether the runtime removes dead (constant) channels.
    """

    name: str
    runtime: str
    release: str
    log_costs: Mapping[str, float] = field(default_factory=dict)
    removes_dead_channels: bool = False
