"""Methods that fit the figures of a device profile to measured networks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from evaluators.cost.fit.costs import Amounts, Array, MeasuredNetwork, ReferenceBoard, amounts_of
from evaluators.cost.fit.features import non_negative
from evaluators.cost.fit.shrinkage import Borrowing, blended, candidates, weights
from evaluators.cost.graph import OpGraph
from evaluators.cost.latency.roofline import Roofline, roofline
from evaluators.devices.device import ANY, Device
from spaces.errors import ConfigError

Fusion = Literal["common", "eager"]
_ROWS_A_COST = 2  # least squares needs at least this many networks per fitted cost
_LEAST_SHARE = (
    0.01  # lower bound of a multiply-accumulate's cost, relative to the fastest network's time per MAC
)


@dataclass(frozen=True)
class FittedCosts:
    """A device profile fitted to some networks.

    Attributes:
        device: The profile, still without power and error bars.
    """

    device: Device

    def graph(self, row: MeasuredNetwork) -> OpGraph:
        """Returns the kernels that the device executes for a network."""
        if self.device.fusion == "eager" and row.eager is not None:
            return row.eager
        return removed(row) if self.device.removes_dead_channels else row.graph

    def modelled(self, row: MeasuredNetwork) -> Roofline:
        """Returns the profile's latency model of a network."""
        return roofline(self.graph(row), self.device)

    def times_ms(self, rows: Sequence[MeasuredNetwork]) -> Array:
        """Returns the modelled latency of each network in ms, `(n,)`.

        Kernel classes that the fitted networks lack run at their dtype's mean throughput; a dtype that they
        lack makes a latency infinite.
        """
        latencies = [self.modelled(row).latency_ms for row in rows]
        return np.array([np.inf if ms is None else ms for ms in latencies])


Method = Callable[[Sequence[MeasuredNetwork]], FittedCosts]


def removed(row: MeasuredNetwork) -> OpGraph:
    """Returns the kernels of a network without its dead (constant) channels."""
    return row.graph if row.without_dead is None else row.without_dead


def methods_for(
    rows: Sequence[MeasuredNetwork], blank: Device, boards: Sequence[ReferenceBoard], borrowing: Borrowing
) -> dict[str, Method]:
    """Returns the methods that the number of measured networks allows, simpler ones first.

    Args:
        rows: The measurements.
        blank: The profile without figures.
        boards: Reference boards whose cost ratios serve as prior means.
        borrowing: Hyperparameters of that prior.
    """
    methods: dict[str, Method] = {"borrowed": lambda some: _borrowed(some, blank, boards, borrowing)}
    n_networks = len({row.name for row in rows})
    for text, fusion, without_dead in _variants(rows):
        model = FittedCosts(replace(blank, fusion=fusion, removes_dead_channels=without_dead))
        graphs = [model.graph(row) for row in rows]
        for by_class in (False, True):
            n_costs = len(amounts_of(graphs).columns) + 2 + (len(_kinds(graphs)) if by_class else 1)
            if n_networks >= _ROWS_A_COST * n_costs:
                label = f"least squares{', overhead by class' if by_class else ''}{text}"
                methods[label] = _least_squares_method(model, by_class)
    return methods


def _variants(rows: Sequence[MeasuredNetwork]) -> list[tuple[str, Fusion, bool]]:
    """Returns (suffix of the label, fusion, whether dead channels are removed) of graphs to fit."""
    variants: list[tuple[str, Fusion, bool]] = [("", "common", False)]
    if any(row.without_dead is not None for row in rows):
        variants.append((", without constant channels", "common", True))
    if any(row.eager is not None for row in rows):
        variants.append((", eager", "eager", False))
    return variants


def _borrowed(
    rows: Sequence[MeasuredNetwork], blank: Device, boards: Sequence[ReferenceBoard], borrowing: Borrowing
) -> FittedCosts:
    """Fits costs by maximum a posteriori, with the reference boards' cost ratios as a mixture prior."""
    kept = amounts_of([row.graph for row in rows])
    less = amounts_of([removed(row) for row in rows], kept.columns, kept.weight_bytes.shape[1])
    latency_ms = np.array([row.latency_ms for row in rows])
    fits = candidates(kept, less, latency_ms, boards, borrowing)
    share = weights(fits, boards, borrowing, without_version(blank.runtime), blank.runtime)
    log_costs, removes = blended(fits, share)
    cost_ms = np.exp(log_costs)
    device = replace(
        blank,
        macs_per_s=_throughputs(less if removes else kept, cost_ms[:-3]),
        memory_bandwidth_bytes_per_s=float(1e3 / cost_ms[-3]),
        flash_bandwidth_bytes_per_s=float(1e3 / cost_ms[-2]),
        kernel_overhead_us={ANY: float(1e3 * cost_ms[-1])},
    )
    return FittedCosts(replace(device, removes_dead_channels=removes))


def without_version(runtime: str) -> str:
    """Drops the last word if it is a version (begins with a digit, or `v` and a digit): `X-CUBE-AI 9.0`."""
    words = runtime.split()
    last = words[-1].removeprefix("v") if words else ""
    return " ".join(words[:-1]) if len(words) > 1 and last[:1].isdigit() else runtime


def _least_squares_method(model: FittedCosts, by_class: bool) -> Method:
    def fit(rows: Sequence[MeasuredNetwork]) -> FittedCosts:
        graphs = [model.graph(row) for row in rows]
        latency_ms = np.array([row.latency_ms for row in rows])
        return replace(model, device=_least_squares(graphs, latency_ms, model.device, by_class))

    return fit


def _least_squares(graphs: Sequence[OpGraph], latency_ms: Array, blank: Device, by_class: bool) -> Device:
    amounts = amounts_of(graphs)
    kinds = _kinds(graphs) if by_class else [ANY]
    kernels = [[sum(kind in (ANY, k.kind) for k in g.kernels) for kind in kinds] for g in graphs]
    n_bytes = (amounts.activation_bytes + amounts.weight_bytes).sum(axis=1)
    total = amounts.macs.sum(axis=1)
    if not total.all():
        raise ConfigError(
            f"{blank.name}: a network without multiply-accumulates cannot be used to fit a throughput"
        )
    # Without a lower bound a class could be fitted as free of cost, and a search would exploit that.
    least = _LEAST_SHARE * float(np.min(latency_ms / total))
    design = np.column_stack([amounts.macs, n_bytes, np.array(kernels, float)])
    costs = non_negative(design, latency_ms, total * least)
    n_macs = amounts.macs.shape[1]
    per_byte = float(costs[n_macs])
    return replace(
        blank,
        macs_per_s=_throughputs(amounts, costs[:n_macs] + least),
        memory_bandwidth_bytes_per_s=1e3 / per_byte if per_byte > 0 else None,
        kernel_overhead_us={k: float(1e3 * c) for k, c in zip(kinds, costs[n_macs + 1 : -1], strict=True)},
        run_overhead_us=float(1e3 * costs[-1]),
    )


def _kinds(graphs: Sequence[OpGraph]) -> list[str]:
    return sorted({str(kernel.kind) for graph in graphs for kernel in graph.kernels})


def _throughputs(amounts: Amounts, cost_ms: Array) -> dict[str, dict[str, float]]:
    """Returns MACs per second by dtype and class; `ANY` is the dtype's mean, for absent classes."""
    throughputs: dict[str, dict[str, float]] = {}
    total = amounts.macs.sum(axis=0)
    for dtype in dict.fromkeys(dtype for dtype, _ in amounts.columns):
        own = [i for i, (d, _) in enumerate(amounts.columns) if d == dtype]
        throughputs[dtype] = {amounts.columns[i][1]: float(1e3 / cost_ms[i]) for i in own}
        throughputs[dtype][ANY] = float(1e3 * total[own].sum() / (total[own] @ cost_ms[own]))
    return throughputs
