"""The share of its own score that a candidate loses on degraded images: noise, blur, low contrast, JPEG compression.

The measure is that of QRID ("Quantization Robustness to Input Degradations"): the relative drop
`(m_clean - m_degraded) / m_clean`, each model against its own clean score, so that a model with a lower clean score
does not count as less robust for that.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluators.base import Evaluation, EvaluationContext, Evaluator, Measurement, Outline, metric_columns
from evaluators.column import Column
from evaluators.metric import Labels, sign_of
from evaluators.runtime import Batch, joined, joined_labels, run_batches
from evaluators.task.statistics.scores import statistics_of, value_of
from spaces.errors import ConfigError, EvaluationError, unknown_name
from spaces.quantization.calibration.degradations import DEGRADATIONS
from spaces.quantization.calibration.degraded_split import DegradedSplit
from spaces.stages.artifact import Artifact, Split
from spaces.stages.inputs import joined_inputs, sole
from spaces.stages.pixels import Pixels, no_images

CLEAN = "clean"
_ASSUMED = "assumed: black is the smallest input value, white the largest"
Scores = dict[str, float]


class RobustnessEvaluator(Evaluator):
    """Evaluates a model on the same images clean and under each degradation, which is drawn once for all models.

    Yields, in per cent of the model's own clean score: `robustness_drop_NAME` for each degradation, `robustness_drop_worst` and
    `robustness_drop_mean`. Below 0 the model is better on degraded images. All are absent if the clean score is not above
    0. Details list the scores, and the uncompressed network's drops.

    Args:
        n_images: Number of images, the first of the split; None takes all. All their degradations are kept in memory as bytes.
        degradations: Names of degradations; None takes all seven.
        batch_size: Maximum batch size.
        threads: onnxruntime's threads within an operator.

    Raises:
        ConfigError: An argument is out of range.
    """

    name: ClassVar[str] = "robustness"
    scores_split: ClassVar[bool] = True

    def __init__(
        self,
        n_images: int | None = 256,
        degradations: Sequence[str] | None = None,
        batch_size: int = 256,
        threads: int = 1,
    ) -> None:
        for key, count in (("n_images", n_images), ("batch_size", batch_size), ("threads", threads)):
            if count is not None and count < 1:
                raise ConfigError(f"evaluator.robustness.{key} must be at least 1, but is {count}")
        self.degradations = tuple(DEGRADATIONS if degradations is None else dict.fromkeys(degradations))
        for kind in self.degradations:
            if kind not in DEGRADATIONS:
                raise ConfigError(
                    unknown_name("degradation", kind, DEGRADATIONS, "evaluator.robustness.degradations")
                )
        if not self.degradations:
            raise ConfigError("evaluator.robustness.degradations must name at least one, or be null for all")
        self.n_images, self.batch_size, self.threads = n_images, batch_size, threads
        self._images: tuple[str, _Images] | None = None
        self._dense: tuple[tuple[str, str], Scores] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_images": None, "_dense": None}  # the caches are not pickled

    def columns(self, outline: Outline) -> frozenset[str]:
        """Returns the columns of the degradations, of their mean and of the worst."""
        del outline
        return metric_columns(f"robustness_drop_{kind}" for kind in (*self.degradations, "mean", "worst"))

    def evaluate(self, artifact: Artifact, context: EvaluationContext) -> Evaluation:
        """Returns the measurements of one ONNX artifact on the first images of `context.split`.

        Raises:
            ConfigError: The split's examples are not images.
            EvaluationError: The model cannot be run, or its outputs or scores are not finite.
        """
        images = self._degraded(context)
        scores = self._scores(artifact, images, context)
        sign = sign_of(context.metric)
        drops, dense = _drops(scores, sign), _drops(self._dense_scores(images, context), sign)
        details: dict[str, Any] = {
            "images": len(images.labels),
            "scores": {kind: context.metric.scale * score for kind, score in scores.items()},
            "dense_drops": dense,
            "pixels": _ASSUMED if images.pixels.assumed else "stated by the task",
        }
        if not drops:
            details["absent_because"] = f"the clean {context.metric.name} is not above 0"
        measurements = [
            Measurement(f"robustness_drop_{kind}", drop, "%", "measured") for kind, drop in drops.items()
        ]
        return Evaluation(tuple(measurements), {self.name: details, "because": _because(drops, details)})

    def _degraded(self, context: EvaluationContext) -> "_Images":
        key = f"{context.split.digest} {context.seed}"
        if self._images is None or self._images[0] != key:
            self._images = (key, _images(context.split, self.degradations, self.n_images, context.seed))
        return self._images[1]

    def _dense_scores(self, images: "_Images", context: EvaluationContext) -> Scores:
        key = (context.reference.artifact.digest, f"{context.split.digest} {context.seed}")
        if self._dense is None or self._dense[0] != key:
            self._dense = (key, self._scores(context.reference.artifact, images, context))
        return self._dense[1]

    def _scores(self, artifact: Artifact, images: "_Images", context: EvaluationContext) -> Scores:
        """Returns the mean score on the clean images and under each degradation, from one session."""
        runs = run_batches(artifact, images.batches, self.batch_size, self.threads, context.exact_sums)
        outputs, labels = joined(list(runs))
        metric, n = context.metric, len(images.labels)
        statistics = statistics_of(metric, outputs, labels)
        parts = [statistics[start : start + n] for start in range(0, len(statistics), n)]
        means = [value_of(metric, part) / metric.scale for part in parts]
        return dict(zip((CLEAN, *images.degraded), means, strict=True))


@dataclass(frozen=True)
class _Images:
    """The same examples, clean and under each degradation.

    Attributes:
        clean: Inputs `(n, *input.shape)`.
        labels: `(n, ...)`.
        degraded: By degradation, `(n, height, width, channels)` bytes: a fourth of the inputs' memory.
        pixels: Turns bytes into inputs.
    """

    clean: NDArray[np.float32]
    labels: Labels
    degraded: Mapping[str, NDArray[np.uint8]]
    pixels: Pixels

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yields the clean examples, then those of each degradation."""
        parts = [slice(i, i + batch_size) for i in range(0, len(self.labels), batch_size)]
        yield from ((self.clean[part], self.labels[part]) for part in parts)
        for images in self.degraded.values():
            yield from ((self.pixels.inputs(images[part]), self.labels[part]) for part in parts)


def _images(split: Split, kinds: Sequence[str], n_images: int | None, seed: int) -> _Images:
    batches = list(split.batches(64, n_images))
    if not batches:
        raise EvaluationError("robustness: the split has no examples")
    clean = sole(joined_inputs([inputs for inputs, _ in batches]), "evaluator.robustness")
    labels = joined_labels([labels for _, labels in batches])
    if reason := no_images(clean.shape[1:]):
        raise ConfigError(f"evaluator.robustness degrades images, but {reason}; leave the evaluator out")
    splits = {kind: DegradedSplit(split, seed, kinds=(kind,)) for kind in kinds}
    pixels = next(iter(splits.values())).pixels
    return _Images(clean, labels, {kind: s.images(len(labels)) for kind, s in splits.items()}, pixels)


def _because(drops: Scores, details: dict[str, Any]) -> dict[str, str]:
    """Returns, by column, the degradation with the worst drop, or why the column is absent."""
    if not drops:
        return {_column(end): details["absent_because"] for end in ("worst", "mean")}
    worst = max((kind for kind in drops if kind not in ("worst", "mean")), key=lambda kind: drops[kind])
    return {_column("worst"): f"under {worst}"}


def _column(end: str) -> str:
    return str(Column.of(f"robustness_drop_{end}"))


def _drops(scores: Scores, sign: float) -> Scores:
    """Returns the relative drops in per cent, the worst and the mean; empty if the clean score is not above 0."""
    clean = scores[CLEAN]
    if clean <= 0:
        return {}
    drops = {kind: 100 * sign * (clean - score) / clean for kind, score in scores.items() if kind != CLEAN}
    return {**drops, "worst": max(drops.values()), "mean": float(np.mean(list(drops.values())))}
