"""How good a candidate's outputs are: the task's metric, its uncertainty, and how it differs from the float model."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluators.base import EarlyStoppingThreshold, Evaluation, EvaluationContext, Evaluator, Measurement
from evaluators.metric import Metric
from evaluators.runtime import Batch, Batches, joined, reference_outputs, run_batches
from evaluators.task.layer_sqnr import layer_sqnr, sqnr_db
from evaluators.task.statistics.early_stopping import PairedTest
from evaluators.task.statistics.intervals import Interval, is_binary, paired_interval, score_interval
from spaces.errors import ConfigError, EvaluationError, TimeLimitError
from spaces.stages.artifact import Artifact

__all__ = ["AccuracyEvaluator", "reference_outputs"]


class AccuracyEvaluator(Evaluator):
    """Judges outputs in one pass over the split through onnxruntime.

    Yields, with METRIC the name of the task's metric (`top1`):

    ============================== =================================================================================
    METRIC, METRIC_low, _high      the metric and its confidence interval (Wilson's for a share of right answers)
    METRIC_drop, _drop_low, _high  float minus this model, over the same examples: above 0 is worse
    agreement                      % of examples whose largest output is the float model's; absent for one output
    output_sqnr_db                 signal-to-noise ratio of the outputs, the float model's being the signal; +-200 at most
    file_bytes                     size of the ONNX file
    ============================== =================================================================================

    Where `context.needed` says how good the metric has to be, it stops as soon as the model is confidently worse, and yields
    `METRIC_partial` and `METRIC_drop_partial` (estimates), `METRIC_partial_error` (their standard error),
    `METRIC_partial_images` (how many examples they are from) and `file_bytes`.

    `explain` says in `layers` what `layer_sqnr` finds for every layer.

    Args:
        batch_size: Most examples a batch.
        threads: onnxruntime's threads within an operator; fixed, so that results do not depend on the executor.
        confidence: Confidence of the intervals, in (0, 1).
        sqnr_images: Examples that layers are compared on; 0 leaves the layers out.
        stop_early: Whether to stop when the model is confidently worse than needed.
        stop_confidence: Confidence of such a stop, over all looks at one model together, in (0, 1).

    Raises:
        ConfigError: An argument makes no sense.
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
        found = self._run(artifact, context)
        if isinstance(found, _Stop):
            return Evaluation(
                (*found.measurements(context.metric), size), pruned=found.reason(context.metric)
            )
        outputs, labels = found
        metric = self._metric(context.metric, outputs, reference, labels)
        return Evaluation((*metric, *_likeness(outputs, reference), size))

    def explain(self, artifact: Artifact, context: EvaluationContext) -> Mapping[str, Any]:
        """Returns `layers`, or `layers_absent_because`; it never fails."""
        if self.sqnr_images == 0:
            return {}
        try:
            layers = layer_sqnr(artifact, context.reference, context.split, self.sqnr_images, self.threads)
        except TimeLimitError:
            raise
        except Exception as error:
            return {"layers": [], "layers_absent_because": f"{type(error).__name__}: {error}"}
        return {"layers": layers}

    def _run(self, artifact: Artifact, context: EvaluationContext) -> "Batch | _Stop":
        """Returns outputs and labels, unless the model turns out to be of no use before the end."""
        if self._is_reference(artifact, context):
            return context.reference.outputs, self._batches.labels(context.split)
        early = self._early_test(context)
        found: list[Batch] = []
        runs = run_batches(
            artifact, lambda size: self._batches.of(context.split, size), self.batch_size, self.threads
        )
        for batch in runs:
            found.append(batch)
            if early is not None and early.stops(batch, context.metric):
                return early
        return joined(found)

    def _is_reference(self, artifact: Artifact, context: EvaluationContext) -> bool:
        """Whether the reference's outputs are what running the artifact again would yield."""
        reference = context.reference
        alike = (reference.batch_size, reference.threads) == (self.batch_size, self.threads)
        return alike and len(reference.outputs) > 0 and artifact.digest == reference.artifact.digest

    def _early_test(self, context: EvaluationContext) -> "_Stop | None":
        if not self.stop_early or context.threshold is None:
            return None
        labels = self._batches.labels(context.split)
        scores = _scores(context.metric, context.reference.outputs, labels)
        bounds = getattr(context.metric, "bounds", (0.0, 1.0) if is_binary(scores) else None)
        if bounds is None:  # nothing is certain of scores without bounds
            return None
        least = context.threshold.least / context.metric.scale
        return _Stop(PairedTest(scores, least, self.stop_confidence, bounds), context.threshold, len(labels))

    def _metric(
        self,
        metric: Metric,
        outputs: NDArray[np.float32],
        reference: NDArray[np.float32],
        labels: NDArray[np.int64],
    ) -> list[Measurement]:
        scores = _scores(metric, outputs, labels)
        wanted = _scores(metric, reference, labels)
        drop = float(np.mean(wanted)) - float(np.mean(scores))
        values = {metric.name: float(np.mean(scores)), f"{metric.name}_drop": drop}
        if len(scores) > 1:
            values |= _ends(metric.name, score_interval(scores, self.confidence))
            values |= _ends(f"{metric.name}_drop", paired_interval(wanted, scores, self.confidence))
        return [Measurement(name, metric.scale * v, metric.unit, "measured") for name, v in values.items()]


class _Stop:
    """Watches the scores as they come, and says why to stop."""

    def __init__(self, test: PairedTest, threshold: EarlyStoppingThreshold, n_examples: int) -> None:
        self._test, self._threshold, self._n = test, threshold, n_examples

    def stops(self, batch: Batch, metric: Metric) -> bool:
        """Takes one more batch of outputs; whether to stop after it."""
        outputs, labels = batch
        if not np.isfinite(outputs).all():  # an error, which tells of all examples
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
        """Returns the bound in words."""
        k = self._test.partial().n_examples
        likely = f"with {100 * self._test.confidence:.6g} % confidence"
        sure = "whatever the rest says" if self._test.certain else likely
        unit = f" {metric.unit}" if metric.unit else ""
        return (
            f"{metric.name} is below {self._threshold.least:.6g}{unit} {sure} after {k:,} of {self._n:,} images; "
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


def _likeness(outputs: NDArray[np.float32], reference: NDArray[np.float32]) -> list[Measurement]:
    """Compares outputs with the float model's, where the two have the same shape."""
    if outputs.shape != reference.shape:
        return []
    wanted = reference.astype(np.float64)
    ratio = sqnr_db(float(np.sum(wanted**2)), float(np.sum((outputs - wanted) ** 2)))
    found = [Measurement("output_sqnr_db", ratio, "dB", "measured")]
    if outputs.shape[1] > 1:
        share = float(np.mean(outputs.argmax(axis=1) == reference.argmax(axis=1)))
        found.insert(0, Measurement("agreement", 100 * share, "%", "measured"))
    return found
