"""What a network needs of a device's memories, and when."""

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
        peak_activation_bytes: What activations and scratch need: the most that is live at once, or the arena that
            holds them where the deployment has one.
        peak_sram_bytes: What must fit the device's `ram_bytes`: that, the weights that are in the same memory, and
            what the runtime keeps there.
        flash_bytes: What must fit its `flash_bytes`; 0 where weights are in the memory of the activations.
        runtime_bytes: What the runtime keeps for itself in the memory of the activations.
        live_bytes: The most that is live at once, streamed weights included: the bound below which no placement can go.
        order: Positions of the kernels in the graph, in the order of execution.
        order_is_best: Whether no other order has a smaller `live_bytes` (before patches).
        timeline: What is live while each kernel runs.
        peak_kernel: Name of the kernel during which `live_bytes` are live; None if there are no kernels.
        peak_live: Bytes by tensor at that moment.
        offsets: Offset of every buffer in the arena; None without one.
        patches: The kernels that run patch by patch; None if none do.
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
        """Returns the plan as plain lists, dicts and numbers, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Layout:
    """One way to run the network."""

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

    Where the order is free, it is the one with the least live bytes that was found, never more than the file's; where
    buffers are placed, too, the better of both orders' arenas counts.

    Args:
        graph: The network.
        deployment: How the runtime lays out memory.

    Raises:
        EvaluationError: The graph has a cycle.
    """
    problem = problem_of(graph, deployment)
    own = Order(file_order(problem, graph), False)
    orders = [own]
    if deployment.order == "best":
        found = best_order(problem, own.kernels, every=deployment.patches > 1)
        orders = [found] if found.kernels == own.kernels or deployment.arena == "liveness" else [found, own]
    layouts = [_layout(graph, problem, order, deployment) for order in orders]
    return _plan(graph, min(layouts, key=lambda layout: layout.n_bytes), deployment)


def peak_activation_bytes(graph: OpGraph) -> int:
    """Returns the most bytes of activations that are live at once, in the best order found.

    A tensor lives from the kernel that writes it to the last one that reads it; the graph's inputs live from the
    start, its outputs to the end. While a kernel runs, its inputs and outputs are live together, but an elementwise
    kernel writes over an input that nobody reads later.
    """
    problem = problem_of(graph, _DEFAULT)
    return peak_bytes(problem, best_order(problem, file_order(problem, graph)).kernels)


def runtime_bytes(graph: OpGraph, deployment: Deployment) -> int:
    """Returns what the runtime keeps for itself in the memory of the activations."""
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
    happened = list(moments(problem, order.kernels))
    live_bytes = max((m.n_bytes for m in happened), default=given_bytes(problem))
    activations = max((m.n_bytes - problem.alone[m.kernel] for m in happened), default=live_bytes)
    arena = None
    if deployment.arena == "greedy":
        groups = buffers(problem, happened, tensors, kernels)
        arena = place(groups)
        weights = {weights_of(name) for name in kernels}
        without = [group for group in groups if group[0].name not in weights]
        activations = arena.n_bytes if len(without) == len(groups) else place(without).n_bytes
    steps = tuple(step_of(m, problem, tensors, kernels[m.kernel]) for m in happened)
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
