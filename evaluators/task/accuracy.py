"""How good a candidate's outputs are: the task's metric, its uncertainty, and how it differs from the float model."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluators.base import Evaluation, EvaluationContext, Evaluator, Measurement
from evaluators.runtime import reference_outputs, run_split
from evaluators.statistics import Interval, paired_interval, score_interval
from evaluators.task.layer_sqnr import layer_sqnr, sqnr_db
from evaluators.task.task import Metric
from spaces.artifact import Artifact
from spaces.errors import ConfigError, EvaluationError, TimeLimitError

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

    `details["layers"]` holds what `layer_sqnr` says of every layer.

    Args:
        batch_size: Most examples a batch.
        threads: onnxruntime's threads within an operator; fixed, so that results do not depend on the executor.
        confidence: Confidence of the intervals, in (0, 1).
        sqnr_images: Examples that layers are compared on; 0 leaves the layers out.

    Raises:
        ConfigError: An argument makes no sense.
    """

    name: ClassVar[str] = "accuracy"
    scores_split: ClassVar[bool] = True

    def __init__(
        self, batch_size: int = 256, threads: int = 1, confidence: float = 0.95, sqnr_images: int = 32
    ) -> None:
        if batch_size < 1 or threads < 1:
            raise ConfigError(
                f"evaluator.accuracy: batch_size ({batch_size}) and threads ({threads}) must be at least 1"
            )
        if not 0 < confidence < 1:
            raise ConfigError(
                f"evaluator.accuracy.confidence must lie between 0 and 1, e.g. 0.95, not {confidence}"
            )
        if sqnr_images < 0:
            raise ConfigError(f"evaluator.accuracy.sqnr_images must not be negative, but is {sqnr_images}")
        self.batch_size = batch_size
        self.threads = threads
        self.confidence = confidence
        self.sqnr_images = sqnr_images

    def evaluate(self, artifact: Artifact, context: EvaluationContext) -> Evaluation:
        """Returns the measurements of one ONNX artifact on `context.split`.

        Raises:
            EvaluationError: The model cannot be run, or its outputs or scores are not finite.
        """
        outputs, labels = run_split(artifact, context.split, self.batch_size, self.threads)
        reference = context.reference.outputs
        if len(reference) != len(outputs):
            raise EvaluationError(
                f"the reference has outputs of {len(reference)} examples, but the split has {len(outputs)}"
            )
        measurements = [
            *self._metric(context.metric, outputs, reference, labels),
            *_likeness(outputs, reference),
            Measurement("file_bytes", len(artifact.onnx_bytes), "bytes", "measured"),
        ]
        return Evaluation(tuple(measurements), self._details(artifact, context))

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

    def _details(self, artifact: Artifact, context: EvaluationContext) -> dict[str, Any]:
        """Explains, but never fails a trial that has been measured."""
        if self.sqnr_images == 0:
            return {}
        try:
            layers = layer_sqnr(artifact, context.reference, context.split, self.sqnr_images, self.threads)
        except TimeLimitError:
            raise
        except Exception as error:
            return {"layers": [], "layers_absent_because": f"{type(error).__name__}: {error}"}
        return {"layers": layers}


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
