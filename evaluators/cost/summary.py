"""Task metric per unit of cost: the summary metrics of EfficientLLM and Intelligence per Watt."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf, prod
from typing import ClassVar

from evaluators.base import (
    Evaluation,
    EvaluationContext,
    Evaluator,
    Measurement,
    Outline,
    Source,
    metric_columns,
)
from evaluators.column import Column
from evaluators.cost.cost import DeviceCosts, Graphs
from evaluators.cost.summary_metrics import (
    compression_rate,
    intelligence_per_joule,
    intelligence_per_watt,
    sample_throughput,
    token_throughput,
)
from evaluators.devices.device import Device
from evaluators.metric import sign_of
from spaces.stages.artifact import Artifact
from spaces.stages.inputs import parts_of


class SummaryEvaluator(Evaluator):
    """Combines the measurements of the evaluators before it, so it has to be listed last.

    Yields `compression_rate` (MCR: compression factor times the fraction of the metric that is kept) and, for
    each device whose latency and energy are known, `samples_per_s`, `intelligence_per_joule` (metric as a
    fraction, divided by the energy of one inference), `intelligence_per_watt`, `memory_utilisation` (AMU:
    mean percentage of the memory in use over a run) and `compute_utilisation` (PCU: MACs per second as a
    percentage of the profile's greatest throughput). Of a metric of which less is better, such as the perplexity, the reciprocal
    counts.

    After `evaluator=decoding`, intelligence is per joule of a written token; that evaluator has IT, AL and AEC itself. A candidate that was
    trained has `sample_throughput` (ST), and for texts `token_throughput` (TT): samples and tokens per second of training and
    parameter. Definitions: `summary_metrics`.
    """

    name: ClassVar[str] = "summary"
    exclusive: ClassVar[bool] = True  # after everything that is timed
    repeatable: ClassVar[bool] = False

    def times(self, context: EvaluationContext) -> bool:
        """False: it computes from timings."""
        del context
        return False

    def possible(self, context: EvaluationContext) -> frozenset[str]:
        """Returns the columns of candidates that were trained, which the uncompressed network was not."""
        del context
        return metric_columns(("sample_throughput", "token_throughput"))

    def columns(self, outline: Outline) -> frozenset[str]:
        """Returns the columns of the model and of every device."""
        costs = outline.costs(("samples_per_s", "intelligence_per_joule", "intelligence_per_watt"))
        shares = outline.costs(("memory_utilisation", "compute_utilisation"), measured=False)
        return metric_columns(("compression_rate", "sample_throughput", "token_throughput")) | costs | shares

    def evaluate(self, artifact: Artifact, context: EvaluationContext) -> Evaluation:
        """Returns the summary metrics of one ONNX artifact.

        Raises:
            EvaluationError: The shapes of the model cannot be inferred.
        """
        known = {m.column: m for m in context.measured}
        score = known.get(str(Column.of(context.metric.name)))
        graphs = Graphs(artifact)
        metrics = [*_compression(artifact, context, known, score), *_training(artifact, context)]
        quality = _quality(score.value, context) / (100 if score.unit == "%" else 1) if score else None
        for device in context.devices.values():
            metrics += _on_device(graphs, device, known, quality)
        reason = "no evaluator before it measured the metric or a cost; name evaluator.summary last"
        return Evaluation(tuple(metrics), {} if metrics else {"summary": {"absent_because": reason}})


def _compression(
    artifact: Artifact,
    context: EvaluationContext,
    known: Mapping[str, Measurement],
    score: Measurement | None,
) -> Iterator[Measurement]:
    drop = known.get(str(Column.of(f"{context.metric.name}_drop")))
    if score is None:
        return
    before = score.value + (sign_of(context.metric) * drop.value if drop is not None else 0.0)
    dense, own = (_quality(value, context) for value in (before, score.value))
    if not (0 < dense < inf and 0 <= own < inf):
        return
    original = len(context.reference.artifact.onnx_bytes)
    rate = compression_rate(original, len(artifact.onnx_bytes), dense, own)
    yield Measurement("compression_rate", rate, "x", score.source)


def _quality(value: float, context: EvaluationContext) -> float:
    """Returns a metric's value, or its reciprocal if less is better; the more, the better."""
    if sign_of(context.metric) > 0:
        return value
    return 1 / value if value > 0 else inf


def _training(artifact: Artifact, context: EvaluationContext) -> Iterator[Measurement]:
    """Yields the throughputs of a candidate's recovery, per parameter of the uncompressed network."""
    notes = artifact.notes.get("recover", {})
    if not notes.get("seconds"):
        return
    initializers = context.reference.artifact.proto().graph.initializer
    n_parameters = sum(prod(i.dims) for i in initializers if i.data_type == i.FLOAT)
    n, seconds = notes["examples"], notes["seconds"]
    yield Measurement("sample_throughput", sample_throughput(n, seconds, n_parameters), "1/s", "measured")
    inputs, labels = next(iter(context.split.batches(1, 1)))
    (ids,) = parts_of(inputs)[:1]
    if ids.dtype.kind in "iu" and ids.shape == labels.shape and ids.ndim == 2:
        rate = token_throughput(n * ids.shape[1], seconds, n_parameters)
        yield Measurement("token_throughput", rate, "1/s", "measured")


def _on_device(
    graphs: Graphs, device: Device, known: Mapping[str, Measurement], quality: float | None
) -> Iterator[Measurement]:
    latency = known.get(str(Column.of("latency_ms", device.name)))
    if latency is not None:
        yield Measurement("samples_per_s", 1e3 / latency.value, "1/s", latency.source, device.name)
    used = _energy(device, known)
    if used is not None and quality is not None and 0 <= quality < inf:
        values = {
            "intelligence_per_joule": (intelligence_per_joule(quality, used.joules), "1/J"),
            "intelligence_per_watt": (intelligence_per_watt(quality, used.watts), "1/W"),
        }
        yield from (Measurement(n, v, unit, used.source, device.name) for n, (v, unit) in values.items())
    if latency is not None and not device.measured:
        yield from _utilisation(DeviceCosts(graphs.on(device), device), latency.value)


@dataclass(frozen=True)
class _Energy:
    """Energy of a written token, or of an inference, its mean power, and how they are known."""

    joules: float
    watts: float
    source: Source


def _energy(device: Device, known: Mapping[str, Measurement]) -> _Energy | None:
    names = ("joules_per_token", "tokens_per_s", "energy_uj", "latency_ms")
    token, rate, energy, latency = (known.get(str(Column.of(name, device.name))) for name in names)
    if token is not None and rate is not None:
        return _Energy(token.value, token.value * rate.value, token.source)
    if energy is None or latency is None:
        return None
    return _Energy(
        energy.value * 1e-6, energy.value / latency.value * 1e-3, energy.source
    )  # uJ over ms is mW


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
