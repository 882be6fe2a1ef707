"""Peak memory for activations."""

from evaluators.cost.graph import Kernel, OpGraph


def peak_activation_bytes(graph: OpGraph) -> int:
    """Returns the most bytes of activations that are live at once, over the file's order.

    A tensor lives from the kernel that writes it to the last one that reads it; the graph's inputs live from the
    start, its outputs to the end. While a kernel runs, its inputs and outputs are live together, but an elementwise
    kernel writes over an input that nobody reads later (the largest such input that is large enough). This is the
    bound below which no placement of buffers can go; a planner's fragmentation and a runtime's own buffers come
    on top.
    """
    last_read = {name: position for position, kernel in enumerate(graph.kernels) for name in kernel.inputs}
    last_read |= dict.fromkeys(graph.outputs, len(graph.kernels))
    live = set(graph.inputs)
    peak = _size(graph, live)
    for position, kernel in enumerate(graph.kernels):
        dying = {name for name in kernel.inputs if last_read[name] == position}
        overwritten = _overwritten(graph, kernel, dying)
        live.update(kernel.outputs)
        peak = max(peak, _size(graph, live) - overwritten)
        live -= dying
        live -= {name for name in kernel.outputs if name not in last_read}
    return peak


def _overwritten(graph: OpGraph, kernel: Kernel, dying: set[str]) -> int:
    """Bytes of the output that need no memory of their own."""
    if kernel.kind != "elementwise":
        return 0
    wanted = max((graph.tensor_bytes[name] for name in kernel.outputs), default=0)
    return wanted if any(graph.tensor_bytes[name] >= wanted for name in dying) else 0


def _size(graph: OpGraph, names: set[str]) -> int:
    return sum(graph.tensor_bytes[name] for name in names)
