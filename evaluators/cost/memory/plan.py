"""Memory plan of a network on a device: peak memory, execution order, placement and timeline."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evaluators.cost.graph import OpGraph
from evaluators.cost.memory.greedy import Arena, buffers, place
from evaluators.cost.memory.liveness import (
    Problem,
    file_order,
    given_bytes,
    moments,
    peak_bytes,
    problem_of,
    tensor_names,
)
from evaluators.cost.memory.order import Order, best_order
from evaluators.cost.memory.patches import PatchStage, best_stage
from evaluators.cost.memory.timeline import Step, step_of, weights_of
from evaluators.devices.device import Deployment


@dataclass(frozen=True)
class MemoryPlan:
    """Memory of one network on one device.

    Attributes:
        peak_activation_bytes: Memory for activations and scratch: the largest number of live bytes, or the
            size of their arena if the deployment has one.
        peak_sram_bytes: Memory that has to fit `Device.ram_bytes`: activations and scratch, weights in the
            same memory, and the runtime's own structures.
        flash_bytes: Memory that has to fit `Device.flash_bytes`; 0 if weights are in the memory of the
            activations.
        runtime_bytes: The runtime's own structures in the memory of the activations.
        live_bytes: The largest number of bytes that are live at once, streamed weights included: the lower
            bound of every placement.
        order: Positions of the kernels in the graph, in the order of execution.
        order_is_best: Whether it is proven that no other order has smaller `live_bytes` (before patches).
        timeline: Live tensors while each kernel runs.
        peak_kernel: Name of the kernel during which `live_bytes` are live; None if there are no kernels.
        peak_live: Live bytes by tensor during that kernel.
        offsets: Offset of every buffer in the arena; None without an arena.
        patches: The kernels that run patch by patch; None if there are none.
    """

    peak_activation_bytes: int
    peak_sram_bytes: int
    flash_bytes: int
    runtime_bytes: int
    live_bytes: int
    order: tuple[int, ...]
    order_is_best: bool
    timeline: tuple[Step, ...]
    peak_kernel: str | None
    peak_live: Mapping[str, int]
    offsets: Mapping[str, int] | None = None
    patches: PatchStage | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the plan as JSON-able lists, dicts and numbers."""
        return asdict(self)


@dataclass(frozen=True)
class _Layout:
    """Memory layout of the network for one execution order."""

    steps: tuple[Step, ...]
    order: Order
    live_bytes: int
    arena: Arena | None
    activation_bytes: int
    patches: PatchStage | None

    @property
    def n_bytes(self) -> int:
        return self.live_bytes if self.arena is None else self.arena.n_bytes


_DEFAULT = Deployment()


def plan_memory(graph: OpGraph, deployment: Deployment = _DEFAULT) -> MemoryPlan:
    """Plans the memory of a network.

    With `order: best` it is the order with the fewest live bytes that the search finds, never more than the
    file's; with an arena besides, the order whose arena is smaller.

    Args:
        graph: Kernels of the network.
        deployment: How the runtime lays out memory.

    Raises:
        EvaluationError: The graph has a cycle.
    """
    problem = problem_of(graph, deployment)
    own = Order(file_order(problem, graph), False)
    orders = [own]
    if deployment.order == "best":
        best = best_order(problem, own.kernels, every=deployment.patches > 1)
        orders = [best] if best.kernels == own.kernels or deployment.arena == "liveness" else [best, own]
    layouts = [_layout(graph, problem, order, deployment) for order in orders]
    return _plan(graph, min(layouts, key=lambda layout: layout.n_bytes), deployment)


def peak_activation_bytes(graph: OpGraph) -> int:
    """Returns the largest number of activation bytes that are live at once, in the best order found.

    A tensor lives from the kernel that writes it to the last one that reads it; the graph's inputs live from the
    start, its outputs to the end. While a kernel runs, its inputs and outputs are live together, but an elementwise
    kernel overwrites in place an input that no later kernel reads.
    """
    problem = problem_of(graph, _DEFAULT)
    return peak_bytes(problem, best_order(problem, file_order(problem, graph)).kernels)


def runtime_bytes(graph: OpGraph, deployment: Deployment) -> int:
    """Returns the bytes of the runtime's own structures in the memory of the activations."""
    convolutions = (k for k in graph.kernels if k.kind in ("conv", "pointwise", "depthwise"))
    channels = sum(k.geometry.out_channels for k in convolutions if k.geometry is not None)
    return (
        deployment.overhead_bytes
        + deployment.kernel_overhead_bytes * len(graph.kernels)
        + deployment.channel_overhead_bytes * channels
    )


def _layout(graph: OpGraph, problem: Problem, order: Order, deployment: Deployment) -> _Layout:
    tensors = tensor_names(graph)
    kernels = [k.name for k in graph.kernels]
    patched = None
    if deployment.patches > 1:
        patched = best_stage(problem, graph, tensors, order.kernels, deployment)
    if patched is not None:
        problem, tensors = patched.problem, patched.tensors
    timeline = list(moments(problem, order.kernels))
    live_bytes = max((m.n_bytes for m in timeline), default=given_bytes(problem))
    activations = max((m.n_bytes - problem.alone[m.kernel] for m in timeline), default=live_bytes)
    arena = None
    if deployment.arena == "greedy":
        groups = buffers(problem, timeline, tensors, kernels)
        arena = place(groups)
        weights = {weights_of(name) for name in kernels}
        without = [group for group in groups if group[0].name not in weights]
        activations = arena.n_bytes if len(without) == len(groups) else place(without).n_bytes
    steps = tuple(step_of(m, problem, tensors, kernels[m.kernel]) for m in timeline)
    return _Layout(steps, order, live_bytes, arena, activations, patched.stage if patched else None)


def _plan(graph: OpGraph, layout: _Layout, deployment: Deployment) -> MemoryPlan:
    one_memory = deployment.weights == "ram"
    weights = graph.weight_bytes if one_memory else 0
    own = runtime_bytes(graph, deployment)
    peak = max(layout.steps, key=lambda step: step.total_bytes, default=None)
    return MemoryPlan(
        peak_activation_bytes=layout.activation_bytes,
        peak_sram_bytes=layout.n_bytes + weights + own,
        flash_bytes=0 if one_memory else graph.weight_bytes,
        runtime_bytes=own,
        live_bytes=layout.live_bytes,
        order=layout.order.kernels,
        order_is_best=layout.order.is_best,
        timeline=layout.steps,
        peak_kernel=None if peak is None else peak.kernel,
        peak_live={} if peak is None else peak.live,
        offsets=None if layout.arena is None else layout.arena.offsets,
        patches=layout.patches,
    )
