"""Modelled costs for every device of the study, from one analysis of the file."""

from typing import Any, ClassVar

from evaluators.base import Evaluation, EvaluationContext, Evaluator, Measurement
from evaluators.cost.graph import OpGraph, op_graph
from evaluators.cost.memory import peak_activation_bytes
from evaluators.cost.roofline import Roofline, roofline
from evaluators.devices import Device
from spaces.artifact import Artifact


class CostEvaluator(Evaluator):
    """Yields `latency_ms`, `peak_activation_bytes` and `weight_bytes` for each device.

    A device whose latency is timed gets no modelled one, and a latency that the profile has no figures for is absent;
    `details["cost"]` says why.
    """

    name: ClassVar[str] = "cost"

    def evaluate(self, artifact: Artifact, context: EvaluationContext) -> Evaluation:
        """Returns the costs of one ONNX artifact on `context.devices`.

        Raises:
            EvaluationError: The shapes of the model cannot be found.
        """
        graph = op_graph(artifact)
        peak = peak_activation_bytes(graph)
        measurements: list[Measurement] = []
        latencies: dict[str, Any] = {}
        for name, device in context.devices.items():
            measurements.append(Measurement("peak_activation_bytes", peak, "bytes", "modelled", name))
            measurements.append(Measurement("weight_bytes", graph.weight_bytes, "bytes", "modelled", name))
            if device.measured:
                continue
            modelled = roofline(graph, device)
            latencies[name] = _explained(modelled, device)
            if modelled.latency_ms is not None:
                measurements.append(Measurement("latency_ms", modelled.latency_ms, "ms", "modelled", name))
        return Evaluation(tuple(measurements), {"cost": {**_summary(graph), "latency": latencies}})


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


def _explained(modelled: Roofline, device: Device) -> dict[str, Any]:
    if modelled.cannot_run:
        lacking = ", ".join(f"{dtype} ({count} kernels)" for dtype, count in modelled.cannot_run.items())
        listed = ", ".join(sorted(device.macs_per_s))
        return {
            "absent_because": f"{device.name} has no throughput for {lacking}; its profile lists {listed}"
        }
    return {"compute_bound_share": round(modelled.compute_bound, 4), "left_out": list(modelled.left_out)}
