"""Task metric per unit of cost: the summary metrics of EfficientLLM and Intelligence per Watt."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

from evaluators.base import Evaluation, EvaluationContext, Evaluator, Measurement, Source
from evaluators.column import Column
from evaluators.cost.cost import DeviceCosts, Graphs
from evaluators.cost.summary_metrics import (
    compression_rate,
    intelligence_per_joule,
    intelligence_per_watt,
)
from evaluators.devices.device import Device
from spaces.stages.artifact import Artifact


class SummaryEvaluator(Evaluator):
    """Combines the measurements of the evaluators before it, so it has to be listed last.

    Yields `compression_rate` (MCR: compression factor times the fraction of the metric that is kept) and, for
    each device whose latency and energy are known, `samples_per_s`, `intelligence_per_joule` (metric as a
    fraction, divided by the energy of one inference), `intelligence_per_watt`, `memory_utilisation` (AMU:
    mean percentage of the memory in use over a run) and `compute_utilisation` (PCU: MACs per second as a
    percentage of the profile's greatest throughput). Definitions: `summary_metrics`.
    """

    name: ClassVar[str] = "summary"
    exclusive: ClassVar[bool] = True  # after everything that is timed
    repeatable: ClassVar[bool] = False

    def times(self, context: EvaluationContext) -> bool:
        """False: it computes from timings."""
        del context
        return False

    def evaluate(self, artifact: Artifact, context: EvaluationContext) -> Evaluation:
        """Returns the summary metrics of one ONNX artifact.

        Raises:
            EvaluationError: The shapes of the model cannot be inferred.
        """
        known = {m.column: m for m in context.measured}
        score = known.get(str(Column.of(context.metric.name)))
        graphs = Graphs(artifact)
        metrics = [*_compression(artifact, context, known, score)]
        for device in context.devices.values():
            metrics += _on_device(graphs, device, known, score)
        reason = "no evaluator before it measured the metric or a cost; name evaluator.summary last"
        return Evaluation(tuple(metrics), {} if metrics else {"summary": {"absent_because": reason}})


def _compression(
    artifact: Artifact,
    context: EvaluationContext,
    known: Mapping[str, Measurement],
    score: Measurement | None,
) -> Iterator[Measurement]:
    drop = known.get(str(Column.of(f"{context.metric.name}_drop")))
    if score is None or score.value < 0 or (drop is not None and score.value + drop.value <= 0):
        return
    before = score.value + (drop.value if drop is not None else 0.0)
    original = len(context.reference.artifact.onnx_bytes)
    rate = compression_rate(original, len(artifact.onnx_bytes), before, score.value)
    yield Measurement("compression_rate", rate, "x", score.source)


def _on_device(
    graphs: Graphs, device: Device, known: Mapping[str, Measurement], score: Measurement | None
) -> Iterator[Measurement]:
    latency = known.get(str(Column.of("latency_ms", device.name)))
    energy = known.get(str(Column.of("energy_uj", device.name)))
    if latency is None:
        return
    yield Measurement("samples_per_s", 1e3 / latency.value, "1/s", latency.source, device.name)
    if energy is not None and score is not None:
        share = score.value / (100 if score.unit == "%" else 1)
        source: Source = energy.source
        watts = energy.value / latency.value * 1e-3  # uJ over ms is mW
        values = {
            "intelligence_per_joule": (intelligence_per_joule(share, energy.value * 1e-6), "1/J"),
            "intelligence_per_watt": (intelligence_per_watt(share, watts), "1/W"),
        }
        yield from (Measurement(n, v, unit, source, device.name) for n, (v, unit) in values.items())
    if not device.measured:
        yield from _utilisation(DeviceCosts(graphs.on(device), device), latency.value)


def _utilisation(costs: DeviceCosts, latency_ms: float) -> Iterator[Measurement]:
    device, kernel_ms = costs.device, costs.kernel_ms()
    if device.ram_bytes and kernel_ms is not None and sum(kernel_ms) > 0:
        by_kernel = dict(zip((k.name for k in costs.graph.kernels), kernel_ms, strict=True))
        used = sum(step.total_bytes * by_kernel.get(step.kernel, 0.0) for step in costs.memory.timeline)
        share = used / sum(kernel_ms) / device.ram_bytes
        yield Measurement("memory_utilisation", 100 * share, "%", "modelled", device.name)
    rates = [rate for by_kind in device.macs_per_s.values() for rate in by_kind.values()]
    if rates:
        share = costs.graph.macs / (latency_ms * 1e-3) / max(rates)
        yield Measurement("compute_utilisation", 100 * share, "%", "modelled", device.name)
