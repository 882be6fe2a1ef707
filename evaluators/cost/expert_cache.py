"""What a cache of experts is worth to a mixture of experts: how local its routing is over the task's texts."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluators.base import Evaluation, EvaluationContext, Evaluator, Measurement, Outline, metric_columns
from evaluators.cost.language.decoder_evaluator import check_sizes
from evaluators.cost.language.expert_cache import (
    cache_size,
    consistency_of,
    expert_cache_cost,
    hit_rates,
    window_uses,
)
from evaluators.metric import SumMetric
from evaluators.runtime import open_session, run_session
from evaluators.sizes import sizes_of
from evaluators.task.statistics.bootstrap import bootstrap_interval, resampled_values
from spaces.errors import ConfigError, EvaluationError
from spaces.quantization.formats.stored import packed_tensor_bytes
from spaces.stages.artifact import Artifact, Split
from spaces.stages.inputs import parts_of
from spaces.task_losses import IGNORED

if TYPE_CHECKING:
    import onnx

_EXPERTS = ".experts."  # in the names of their weights: see `MixtureOfExperts`


class ExpertCacheEvaluator(Evaluator):
    """Reads which experts a candidate's TopK nodes choose for the tokens of texts (arXiv 2505.16056).

    Yields, with intervals by the bootstrap over texts:

    ===================== =========================================================================================
    routing_srp           segment routing best performance (SRP): the best F1 score of fixed sets of experts for
                          segments of tokens, all layers together
    expert_hit_rate       segment cache best hit rate (SCH): of a cache that knows the uses in the segment ahead
    lru_hit_rate          of a cache of the same size that evicts the longest unused expert
    cached_bytes          packed bytes of everything that always stays, and of the cached experts
    expert_load_ms        on devices with a bandwidth of the weights' memory: loading the others, a token (SCH)
    ===================== =========================================================================================

    Args:
        segment: Tokens m of a segment.
        cache_ratio: Cached experts of a layer over those that a token uses (rho).
        cold_start: Whether caches are empty at the beginning of a text; else they hold the experts that are used first.
        texts: Most texts of the split.
        confidence: Of the intervals, in (0, 1).
        threads: onnxruntime's threads within an operator.

    Raises:
        ConfigError: An argument is out of range.
    """

    name: ClassVar[str] = "expert_cache"
    scores_split: ClassVar[bool] = True

    def __init__(
        self,
        segment: int = 16,
        cache_ratio: float = 2.0,
        cold_start: bool = False,
        texts: int = 24,
        confidence: float = 0.95,
        threads: int = 1,
    ) -> None:
        check_sizes(self.name, {"segment": segment, "texts": texts, "threads": threads})
        if not cache_ratio >= 1 or not 0 < confidence < 1:
            raise ConfigError(
                f"evaluator.expert_cache: cache_ratio ({cache_ratio}) must be at least 1, since a token's experts have to fit, and "
                f"confidence ({confidence}) lie between 0 and 1"
            )
        self.segment, self.cache_ratio, self.texts = segment, cache_ratio, texts
        self.cold_start = cold_start
        self.confidence, self.threads = confidence, threads

    def columns(self, outline: Outline) -> frozenset[str]:
        """Returns the columns of the shares with their intervals, and of the cache's costs."""
        shares = metric_columns(("routing_srp", "expert_hit_rate", "lru_hit_rate"), "_low", "_high")
        return shares | metric_columns(("cached_bytes",)) | outline.costs(("expert_load_ms",))

    def evaluate(self, artifact: Artifact, context: EvaluationContext) -> Evaluation:
        """Returns the measurements of one ONNX artifact on `context.split`.

        Raises:
            EvaluationError: The split has no texts, or none as long as a segment; or layers differ in their experts.
        """
        proto = artifact.proto()
        routers = [node for node in proto.graph.node if node.op_type == "TopK"]
        if not routers:
            reason = "the network has no TopK nodes, which choose experts (model=moe)"
            return Evaluation((), {self.name: {"absent_because": reason}})
        traces = [*_traces(proto, routers, self._texts(artifact, context.split), self.threads)]
        n_experts, active = traces[0].n_experts, traces[0].routing.shape[2]
        size = cache_size(self.cache_ratio, active, n_experts)
        found = [*self._local(traces, size)]
        hit_rate = next(m.value for m in found if m.name == "expert_hit_rate") / 100
        found += self._costs(artifact, proto, context, traces[0], hit_rate)
        details = {"experts": n_experts, "active": active, "cached": size, "texts": len(traces)}
        return Evaluation(tuple(found), {self.name: details})

    def _texts(self, artifact: Artifact, split: Split) -> "Iterator[tuple[NDArray[np.int64], int]]":
        """Yields each text's window of tokens, `(length,)`, and how many of them are the text."""
        longest = 0
        for inputs, labels in split.batches(1, self.texts):
            (ids,) = parts_of(inputs)
            if ids.ndim != 2 or labels.shape != ids.shape:
                raise EvaluationError(
                    f"expert_cache reads texts of tokens, with the tokens that follow as labels (task=text), not inputs {ids.shape} with "
                    f"labels {labels.shape}"
                )
            n_tokens = int(np.flatnonzero(labels[0] != IGNORED).max(initial=-1)) + 1
            longest = max(longest, n_tokens)
            if n_tokens >= self.segment:
                yield ids[0], n_tokens
        if longest < self.segment:
            raise EvaluationError(
                f"evaluator.expert_cache.segment={self.segment}: the longest text has {longest} tokens"
            )

    def _local(self, traces: "list[_Trace]", size: int) -> Iterator[Measurement]:
        uses = [window_uses(t.routing, t.n_experts, self.segment) for t in traces]
        yield from self._bounded("routing_srp", _Srp(), np.array(uses))
        for name, segment in (("expert_hit_rate", self.segment), ("lru_hit_rate", 1)):
            rates = [hit_rates(t.routing, t.n_experts, segment, self.cold_start)[size - 1] for t in traces]
            counts = np.array(
                [[rate * t.routing.size, t.routing.size] for rate, t in zip(rates, traces, strict=True)]
            )
            yield from self._bounded(name, _Share(), counts)

    def _bounded(
        self, name: str, metric: SumMetric, statistics: NDArray[np.generic]
    ) -> Iterator[Measurement]:
        """Yields a share of all texts as per cent, and its interval."""
        value = metric.pooled(statistics, np.ones(len(statistics)))
        yield Measurement(name, 100 * value, "%", "measured")
        interval = bootstrap_interval(value, resampled_values(metric, statistics), self.confidence)
        for end, bound in zip(("low", "high"), interval or (), strict=False):
            yield Measurement(f"{name}_{end}", 100 * bound, "%", "measured")

    def _costs(
        self,
        artifact: Artifact,
        proto: "onnx.ModelProto",
        context: EvaluationContext,
        trace: "_Trace",
        hit_rate: float,
    ) -> Iterator[Measurement]:
        n_layers, _, active = trace.routing.shape
        of_experts = experts_bytes(proto)
        if not of_experts:
            return
        one = of_experts / (n_layers * trace.n_experts)
        shared = sizes_of(artifact)[1].value - of_experts
        ratio = cache_size(self.cache_ratio, active, trace.n_experts) / active
        costs = expert_cache_cost(n_layers, active, one, shared, ratio, hit_rate, 1.0)
        yield Measurement("cached_bytes", costs.resident_bytes, "bytes", "modelled")
        for name, device in context.devices.items():
            link = device.flash_bandwidth_bytes_per_s or device.memory_bandwidth_bytes_per_s
            if link is not None:
                costs = expert_cache_cost(n_layers, active, one, shared, ratio, hit_rate, link)
                yield Measurement("expert_load_ms", 1e3 * costs.load_s_per_token, "ms", "modelled", name)


def experts_bytes(proto: "onnx.ModelProto") -> int:
    """Returns the packed bytes of all routed experts of a model; 0 if no weight is named as theirs."""
    import onnx_ir as ir

    sizes = {
        i.name: -(-prod(i.dims) * ir.DataType(i.data_type).bitwidth // 8) for i in proto.graph.initializer
    }
    return sum(n for name, n in packed_tensor_bytes(proto, sizes).items() if _EXPERTS in name)


@dataclass(frozen=True, eq=False)
class _Trace:
    """The routing of a text, `(n_layers, n_tokens, active)` int64, to `n_experts` experts a layer."""

    routing: NDArray[np.int64]
    n_experts: int


def _traces(
    proto: "onnx.ModelProto",
    routers: "list[onnx.NodeProto]",
    texts: "Iterator[tuple[NDArray[np.int64], int]]",
    threads: int,
) -> Iterator[_Trace]:
    """Runs the network up to its last router; yields each text's routing."""
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(proto)
    names = [name for node in routers for name in (node.input[0], node.output[1])]
    del made.graph.output[:]
    made.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = open_session(made.SerializeToString(), threads)
    for ids, n_tokens in texts:
        found = run_session(session, ids[None], names)
        scores, chosen = found[::2], found[1::2]
        shapes = {(s.shape[-1], *c.shape) for s, c in zip(scores, chosen, strict=True)}
        if len(shapes) > 1 or chosen[0].shape[:-1] != (1, len(ids)):
            raise EvaluationError(
                f"the TopK nodes choose {sorted(shapes)} (of how many, and the indices' shape) for {len(ids)} tokens: one choice of "
                "experts a token, of equally many in all layers, is needed"
            )
        yield _Trace(np.concatenate(chosen)[:, :n_tokens].astype(np.int64), scores[0].shape[-1])


class _Srp(SumMetric):
    """SRP of the sums of `window_uses`."""

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns SRP for each row of sums, `(m, segment + 1)`."""
        return np.array([consistency_of(row).srp for row in sums])


class _Share(SumMetric):
    """A share of counts."""

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the share for each row of sums, `(m, 2)`: what counts, and all."""
        return np.asarray(sums[:, 0] / sums[:, 1])
