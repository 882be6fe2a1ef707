"""The quality of a candidate: the task's metrics with confidence intervals, and the differences from the float model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from evaluators.base import (
    EarlyStoppingThreshold,
    Evaluation,
    EvaluationContext,
    Evaluator,
    Measurement,
    Outline,
    metric_columns,
)
from evaluators.metric import Metric, sign_of
from evaluators.runtime import (
    Batches,
    OutputBatch,
    n_not_finite,
    not_finite,
    reference_outputs,
    rollout_of,
    run_batches,
)
from evaluators.sizes import sizes_of
from evaluators.task.layer_sqnr import layer_sqnr
from evaluators.task.metrics.same_class import SameClass
from evaluators.task.similarity import Similarity, agreement_for
from evaluators.task.statistics.bootstrap import RESAMPLES
from evaluators.task.statistics.early_stopping import PairedTest, score_bounds
from evaluators.task.statistics.scores import Estimate, Gathered, Judge, Statistics
from spaces.errors import ConfigError, EvaluationError, TimeLimitError
from spaces.stages.artifact import Artifact
from spaces.stages.inputs import each, n_rows

__all__ = ["AccuracyEvaluator", "reference_outputs"]


class AccuracyEvaluator(Evaluator):
    """Evaluates outputs in one pass over the split through onnxruntime.

    Yields, with METRIC the name of the task's metric (`top1`):

    ============================== =================================================================================
    METRIC, METRIC_low, _high      the metric and its confidence interval: Wilson's for a share of right answers, by the
                                   bootstrap for a metric that is no mean over examples
    METRIC_drop, _drop_low, _high  by how much it is worse than the float model's, over the same examples
    agreement                      how far the answers are the float model's: see `Task.agreement`
    output_sqnr_db                 signal-to-noise ratio of the outputs, the float model's being the signal; +-200 at most
    file_bytes                     size of the ONNX file
    packed_bytes                   its size with the weights in the packed form that their formats store; `file_bytes` where
                                   every weight is stored in a type of its own width
    ============================== =================================================================================

    The first rows come also for each of the task's further metrics. Where examples come in groups (`context.groups`), intervals are those
    of as many independent examples as these are worth, or by resamples of whole groups: see `effective_size` and `resampled_values`.

    With `context.threshold`, the evaluation stops as soon as the metric is confidently worse than the threshold, and yields
    `METRIC_partial` and `METRIC_drop_partial` (estimates), `METRIC_partial_error` (their standard error),
    `METRIC_partial_images` (the number of examples evaluated), `file_bytes` and `packed_bytes`. It stops only where the metric is a mean
    of bounded scores.

    `explain` returns the result of `layer_sqnr` as `layers`.

    Args:
        batch_size: Maximum batch size.
        threads: onnxruntime's threads within an operator; fixed, so that results do not depend on the executor.
        confidence: Confidence of the intervals, in (0, 1).
        sqnr_images: Examples that layers are compared on; 0 leaves the layers out.
        stop_early: Whether to stop when the metric is confidently worse than the early-stopping threshold.
        stop_confidence: Confidence of early stopping, over all tests of one model together, in (0, 1).
        n_resamples: Number of resamples for the intervals of a metric that is no mean over examples.

    Raises:
        ConfigError: An argument is out of range.
    """

    name: ClassVar[str] = "accuracy"
    scores_split: ClassVar[bool] = True

    def __init__(
        self,
        batch_size: int = 256,
        threads: int = 1,
        confidence: float = 0.95,
        sqnr_images: int = 32,
        stop_early: bool = True,
        stop_confidence: float = 0.999,
        n_resamples: int = RESAMPLES,
    ) -> None:
        if batch_size < 1 or threads < 1:
            raise ConfigError(
                f"evaluator.accuracy: batch_size ({batch_size}) and threads ({threads}) must be at least 1"
            )
        for key, share in (("confidence", confidence), ("stop_confidence", stop_confidence)):
            if not 0 < share < 1:
                raise ConfigError(
                    f"evaluator.accuracy.{key} must lie between 0 and 1, e.g. 0.95, not {share}"
                )
        if sqnr_images < 0:
            raise ConfigError(f"evaluator.accuracy.sqnr_images must not be negative, but is {sqnr_images}")
        if n_resamples < 2:
            raise ConfigError(f"evaluator.accuracy.n_resamples must be at least 2, but is {n_resamples}")
        self.batch_size = batch_size
        self.threads = threads
        self.confidence = confidence
        self.sqnr_images = sqnr_images
        self.stop_early = stop_early
        self.stop_confidence = stop_confidence
        self.n_resamples = n_resamples
        self._batches = Batches()
        self._baseline: _Baseline | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_baseline": None}  # the cache is not pickled

    def columns(self, outline: Outline) -> frozenset[str]:
        """Returns the columns of the metrics, of the likeness to the float model, and of the sizes."""
        judged = [f"{metric.name}{end}" for metric in outline.metrics for end in ("", "_drop")]
        agreement = outline.agreement or SameClass()
        likeness = (agreement.name, "output_sqnr_db", "file_bytes", "packed_bytes")
        return metric_columns(judged, "_low", "_high") | metric_columns(likeness)

    def evaluate(self, artifact: Artifact, context: EvaluationContext) -> Evaluation:
        """Returns the measurements of one ONNX artifact on `context.split`.

        Raises:
            EvaluationError: The model cannot be run, or its outputs or scores are not finite.
        """
        n_reference = n_rows(context.reference.outputs)
        if n_reference != len(context.split):
            raise EvaluationError(
                f"the reference has outputs of {n_reference} examples, but the split has {len(context.split)}"
            )
        sizes = sizes_of(artifact)
        baseline = self._baseline_of(context)
        early = None if self._is_reference(artifact, context) else self._early_test(context, baseline)
        metrics = (context.metric, *context.others)
        gathered = Gathered(metrics)
        whole = context.reference.artifact.input.output.whole
        similarity = Similarity(agreement_for(context.agreement, context.reference.outputs, whole))
        n_bad = done = 0
        for outputs, labels in self._runs(artifact, context):
            rows = slice(done, done + len(labels))
            done += len(labels)
            n_bad += n_not_finite(outputs)
            scores = None
            if not n_bad:
                scores, *_ = gathered.add(outputs, labels)
                similarity.add(outputs, each(lambda a, rows=rows: a[rows], context.reference.outputs))  # type: ignore[misc]
            if early is not None and early.stops(scores):
                return Evaluation((*early.measurements(), *sizes), pruned=early.reason())
        if n_bad:
            raise not_finite(n_bad, done)
        if not done:
            raise EvaluationError("the split has no examples")
        judged = [
            measurement
            for metric, judge, found in zip(metrics, baseline.judges, gathered.statistics(), strict=True)
            for measurement in _measurements(metric, judge.value(found), judge.drop(found))
        ]
        return Evaluation((*judged, *similarity.measurements(), *sizes))

    def explain(self, artifact: Artifact, context: EvaluationContext) -> Mapping[str, Any]:
        """Returns `layers`, or `layers_absent_because` if the layers cannot be compared."""
        if self.sqnr_images == 0:
            return {}
        try:
            layers = layer_sqnr(artifact, context.reference, context.split, self.sqnr_images, self.threads)
        except TimeLimitError:
            raise
        except Exception as error:
            return {"layers": [], "layers_absent_because": f"{type(error).__name__}: {error}"}
        return {"layers": layers}

    def _runs(self, artifact: Artifact, context: EvaluationContext) -> Iterator[OutputBatch]:
        """Yields the outputs and labels of all examples, in batches; the reference's are known."""
        if self._is_reference(artifact, context):
            yield context.reference.outputs, self._batches.labels(context.split)
            return
        yield from run_batches(
            artifact,
            lambda size: self._batches.of(context.split, size),
            self.batch_size,
            self.threads,
            context.exact_sums,
            rollout_of(context.split),
        )

    def _is_reference(self, artifact: Artifact, context: EvaluationContext) -> bool:
        """Whether the artifact is the reference, whose outputs were computed with this batch size and these threads."""
        reference = context.reference
        same_settings = (reference.batch_size, reference.threads) == (self.batch_size, self.threads)
        return (
            same_settings and n_rows(reference.outputs) > 0 and artifact.digest == reference.artifact.digest
        )

    def _baseline_of(self, context: EvaluationContext) -> "_Baseline":
        """Returns the float model's statistics and judges on the context's split, computed once."""
        key = (context.split, context.reference, context.metric, context.others, context.groups)
        if self._baseline is None or not all(a is b for a, b in zip(self._baseline.key, key, strict=True)):
            metrics = (context.metric, *context.others)
            gathered = Gathered(metrics)
            gathered.add(context.reference.outputs, self._batches.labels(context.split))
            found = gathered.statistics()
            judges = [
                Judge(metric, statistics, self.confidence, self.n_resamples, context.groups)
                for metric, statistics in zip(metrics, found, strict=True)
            ]
            self._baseline = _Baseline(key, found[0], judges)
        return self._baseline

    def _early_test(self, context: EvaluationContext, baseline: "_Baseline") -> "_EarlyStopping | None":
        if not self.stop_early or context.threshold is None:
            return None
        bounds = score_bounds(context.metric, baseline.statistics)
        if bounds is None:
            return None
        return _EarlyStopping(
            context.metric, baseline.statistics, context.threshold, self.stop_confidence, bounds
        )


@dataclass(frozen=True)
class _Baseline:
    """The float model's scores.

    Attributes:
        key: What they are of.
        statistics: Those of the task's first metric.
        judges: One for each metric.
    """

    key: tuple[Any, ...]
    statistics: Statistics
    judges: Sequence[Judge]


class _EarlyStopping:
    """Tests after every batch of outputs whether to stop, and reports the estimate and the reason.

    Scores are multiplied by the metric's sign, so that higher is better.

    Args:
        metric: The metric, which averages.
        reference: The float model's scores, `(n,)`.
        threshold: The value that has to be reached.
        confidence: Confidence of stopping, over all tests together.
        bounds: Lowest and highest possible score.
    """

    def __init__(
        self,
        metric: Metric,
        reference: Statistics,
        threshold: EarlyStoppingThreshold,
        confidence: float,
        bounds: tuple[float, float],
    ) -> None:
        self._metric, self._threshold = metric, threshold
        self._n, self._sign = len(reference), sign_of(metric)
        least = self._sign * threshold.least / metric.scale
        low, high = sorted(self._sign * bound for bound in bounds)
        self._test = PairedTest(self._sign * reference, least, confidence, (low, high))

    def stops(self, scores: Statistics | None) -> bool:
        """Adds the scores of one batch, None if outputs are not finite, and returns whether to stop after it."""
        if scores is None:  # run to the end, so that the error counts all examples
            self._test.give_up()
        else:
            self._test.add(self._sign * scores)
        return self._test.hopeless

    def measurements(self) -> list[Measurement]:
        """Returns the estimate, under names that no full evaluation uses."""
        metric, partial = self._metric, self._test.partial()
        name = f"{metric.name}_partial"
        return [
            Measurement(name, self._sign * metric.scale * partial.mean, metric.unit, "measured"),
            Measurement(f"{metric.name}_drop_partial", metric.scale * partial.drop, metric.unit, "measured"),
            Measurement(f"{name}_error", metric.scale * partial.error, metric.unit, "measured"),
            Measurement(f"{name}_images", partial.n_examples, "images", "measured"),
        ]

    def reason(self) -> str:
        """Returns why the evaluation stopped, as text."""
        k = self._test.partial().n_examples
        likely = f"with {100 * self._test.confidence:.6g} % confidence"
        certainty = "for certain" if self._test.certain else likely
        unit = f" {self._metric.unit}" if self._metric.unit else ""
        side = "below" if self._sign > 0 else "above"
        return (
            f"{self._metric.name} is {side} {self._threshold.least:.6g}{unit} {certainty} after {k:,} of {self._n:,} images; "
            f"{self._threshold.why}"
        )


def _measurements(metric: Metric, value: Estimate, drop: Estimate) -> Iterator[Measurement]:
    for name, estimate in ((metric.name, value), (f"{metric.name}_drop", drop)):
        yield Measurement(name, estimate.value, metric.unit, "measured")
        for end, bound in zip(("low", "high"), estimate.interval or (), strict=False):
            yield Measurement(f"{name}_{end}", bound, metric.unit, "measured")
