"""The accuracy of a candidate: the task's metric with a confidence interval, and the difference from the float model."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluators.base import EarlyStoppingThreshold, Evaluation, EvaluationContext, Evaluator, Measurement
from evaluators.metric import Metric
from evaluators.runtime import Batches, OutputBatch, joined, reference_outputs, run_batches
from evaluators.task.layer_sqnr import layer_sqnr, sqnr_db
from evaluators.task.statistics.early_stopping import PairedTest
from evaluators.task.statistics.intervals import Interval, is_binary, paired_interval, score_interval
from spaces.errors import ConfigError, EvaluationError, TimeLimitError
from spaces.stages.artifact import Artifact

__all__ = ["AccuracyEvaluator", "reference_outputs"]


class AccuracyEvaluator(Evaluator):
    """Evaluates outputs in one pass over the split through onnxruntime.

    Yields, with METRIC the name of the task's metric (`top1`):

    ============================== =================================================================================
    METRIC, METRIC_low, _high      the metric and its confidence interval (Wilson's for a share of right answers)
    METRIC_drop, _drop_low, _high  float minus this model, over the same examples: above 0 is worse
    agreement                      % of examples whose largest output is the float model's; absent for one output
    output_sqnr_db                 signal-to-noise ratio of the outputs, the float model's being the signal; +-200 at most
    file_bytes                     size of the ONNX file
    ============================== =================================================================================

    With `context.threshold`, the evaluation stops as soon as the metric is confidently below the threshold, and yields
    `METRIC_partial` and `METRIC_drop_partial` (estimates), `METRIC_partial_error` (their standard error),
    `METRIC_partial_images` (the number of examples evaluated) and `file_bytes`.

    `explain` returns the result of `layer_sqnr` as `layers`.

    Args:
        batch_size: Maximum batch size.
        threads: onnxruntime's threads within an operator; fixed, so that results do not depend on the executor.
        confidence: Confidence of the intervals, in (0, 1).
        sqnr_images: Examples that layers are compared on; 0 leaves the layers out.
        stop_early: Whether to stop when the metric is confidently below the early-stopping threshold.
        stop_confidence: Confidence of early stopping, over all tests of one model together, in (0, 1).

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
        self.batch_size = batch_size
        self.threads = threads
        self.confidence = confidence
        self.sqnr_images = sqnr_images
        self.stop_early = stop_early
        self.stop_confidence = stop_confidence
        self._batches = Batches()

    def evaluate(self, artifact: Artifact, context: EvaluationContext) -> Evaluation:
        """Returns the measurements of one ONNX artifact on `context.split`.

        Raises:
            EvaluationError: The model cannot be run, or its outputs or scores are not finite.
        """
        reference = context.reference.outputs
        if len(reference) != len(context.split):
            raise EvaluationError(
                f"the reference has outputs of {len(reference)} examples, but the split has {len(context.split)}"
            )
        size = Measurement("file_bytes", len(artifact.onnx_bytes), "bytes", "measured")
        result = self._run(artifact, context)
        if isinstance(result, _EarlyStopping):
            return Evaluation(
                (*result.measurements(context.metric), size), pruned=result.reason(context.metric)
            )
        outputs, labels = result
        metric = self._metric(context.metric, outputs, reference, labels)
        return Evaluation((*metric, *_similarity(outputs, reference), size))

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

    def _run(self, artifact: Artifact, context: EvaluationContext) -> "OutputBatch | _EarlyStopping":
        """Returns outputs and labels, or the early-stopping test if it stopped the evaluation."""
        if self._is_reference(artifact, context):
            return context.reference.outputs, self._batches.labels(context.split)
        early = self._early_test(context)
        batches: list[OutputBatch] = []
        runs = run_batches(
            artifact,
            lambda size: self._batches.of(context.split, size),
            self.batch_size,
            self.threads,
            context.exact_sums,
        )
        for batch in runs:
            batches.append(batch)
            if early is not None and early.stops(batch, context.metric):
                return early
        return joined(batches)

    def _is_reference(self, artifact: Artifact, context: EvaluationContext) -> bool:
        """Whether the artifact is the reference, whose outputs were computed with this batch size and these threads."""
        reference = context.reference
        same_settings = (reference.batch_size, reference.threads) == (self.batch_size, self.threads)
        return same_settings and len(reference.outputs) > 0 and artifact.digest == reference.artifact.digest

    def _early_test(self, context: EvaluationContext) -> "_EarlyStopping | None":
        if not self.stop_early or context.threshold is None:
            return None
        labels = self._batches.labels(context.split)
        scores = _scores(context.metric, context.reference.outputs, labels)
        bounds = getattr(context.metric, "bounds", (0.0, 1.0) if is_binary(scores) else None)
        if bounds is None:  # the test needs bounded scores
            return None
        least = context.threshold.least / context.metric.scale
        test = PairedTest(scores, least, self.stop_confidence, bounds)
        return _EarlyStopping(test, context.threshold, len(labels))

    def _metric(
        self,
        metric: Metric,
        outputs: NDArray[np.float32],
        reference: NDArray[np.float32],
        labels: NDArray[np.int64],
    ) -> list[Measurement]:
        scores = _scores(metric, outputs, labels)
        reference_scores = _scores(metric, reference, labels)
        drop = float(np.mean(reference_scores)) - float(np.mean(scores))
        values = {metric.name: float(np.mean(scores)), f"{metric.name}_drop": drop}
        if len(scores) > 1:
            values |= _ends(metric.name, score_interval(scores, self.confidence))
            values |= _ends(f"{metric.name}_drop", paired_interval(reference_scores, scores, self.confidence))
        return [Measurement(name, metric.scale * v, metric.unit, "measured") for name, v in values.items()]


class _EarlyStopping:
    """Tests after every batch of outputs whether to stop, and reports the estimate and the reason."""

    def __init__(self, test: PairedTest, threshold: EarlyStoppingThreshold, n_examples: int) -> None:
        self._test, self._threshold, self._n = test, threshold, n_examples

    def stops(self, batch: OutputBatch, metric: Metric) -> bool:
        """Adds one batch of outputs, and returns whether to stop after it."""
        outputs, labels = batch
        if not np.isfinite(outputs).all():  # run to the end, so that the error counts all examples
            self._test.give_up()
        else:
            self._test.add(_scores(metric, outputs, labels))
        return self._test.hopeless

    def measurements(self, metric: Metric) -> list[Measurement]:
        """Returns the estimate, under names that no full evaluation uses."""
        partial, name = self._test.partial(), f"{metric.name}_partial"
        return [
            Measurement(name, metric.scale * partial.mean, metric.unit, "measured"),
            Measurement(f"{metric.name}_drop_partial", metric.scale * partial.drop, metric.unit, "measured"),
            Measurement(f"{name}_error", metric.scale * partial.error, metric.unit, "measured"),
            Measurement(f"{name}_images", partial.n_examples, "images", "measured"),
        ]

    def reason(self, metric: Metric) -> str:
        """Returns why the evaluation stopped, as text."""
        k = self._test.partial().n_examples
        likely = f"with {100 * self._test.confidence:.6g} % confidence"
        certainty = "for certain" if self._test.certain else likely
        unit = f" {metric.unit}" if metric.unit else ""
        return (
            f"{metric.name} is below {self._threshold.least:.6g}{unit} {certainty} after {k:,} of {self._n:,} images; "
            f"{self._threshold.why}"
        )


def _scores(metric: Metric, outputs: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    scores = np.asarray(metric.per_example(outputs, labels), dtype=np.float64)
    bad = int(np.sum(~np.isfinite(scores)))
    if bad:
        raise EvaluationError(f"the metric {metric.name} is not finite for {bad} of {len(scores)} examples")
    return scores


def _ends(name: str, interval: Interval) -> dict[str, float]:
    return {f"{name}_low": interval.low, f"{name}_high": interval.high}


def _similarity(outputs: NDArray[np.float32], reference: NDArray[np.float32]) -> list[Measurement]:
    """Returns `agreement` and `output_sqnr_db`; nothing if the outputs have another shape than the float model's."""
    if outputs.shape != reference.shape:
        return []
    signal = reference.astype(np.float64)
    ratio = sqnr_db(float(np.sum(signal**2)), float(np.sum((outputs - signal) ** 2)))
    measurements = [Measurement("output_sqnr_db", ratio, "dB", "measured")]
    if outputs.shape[1] > 1:
        share = float(np.mean(outputs.argmax(axis=1) == reference.argmax(axis=1)))
        measurements.insert(0, Measurement("agreement", 100 * share, "%", "measured"))
    return measurements
