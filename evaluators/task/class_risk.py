"""False negatives of each class, compared with the uncompressed network's, for use in constraints.

A compressed network may be as accurate as before and yet miss more of the few examples that matter. The measure, the number of
false negatives, is that of "Class-dependent Compression of Deep Neural Networks" (arXiv 1909.10364).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluators.base import Evaluation, EvaluationContext, Evaluator, Measurement, Outline, metric_columns
from evaluators.column import Column
from evaluators.runtime import Batches, joined, rollout_of, run_batches
from evaluators.task.statistics.groups import Groups, effective_size, group_numbers
from evaluators.task.statistics.intervals import clopper_pearson_bound
from spaces.errors import ConfigError, EvaluationError
from spaces.stages.artifact import Artifact

MOST_CLASSES = 10  # with columns of their own, and with rows in the details

EXCESS = "false_negatives_excess"

Counts = NDArray[np.int64]


class ClassRiskEvaluator(Evaluator):
    """Counts false negatives: examples of a class whose largest output is that of another class.

    Yields, with CLASS a class' number:

    ================================ ===============================================================================
    false_negatives_excess           the largest over the classes of `misses - dense misses * (1 + slack)`, in examples;
                                     0 or less: no class is missed more often than the dense network misses it. With a
                                     `margin`, examples recognised by no more than that count as misses here
    false_negatives_CLASS            number of its examples that are missed
    false_negatives_CLASS_rate       the same as per cent of its examples
    false_negatives_CLASS_rate_high  exact upper bound of the rate (Clopper and Pearson), one-sided; where examples come in
                                     groups (`context.groups`), that of as many independent ones as these are worth
    ================================ ===============================================================================

    A result on few examples of a class need not hold on another split: a model without excess may have been lucky, the more
    so if it was chosen among many. A `margin` is stricter with the candidate than with the dense network, which compensates
    for a little luck.

    The columns by class are absent if more than `MOST_CLASSES` classes are counted; details list the worst classes.
    The model runs over the split once more, in addition to the run for the accuracy.

    Args:
        classes: Numbers of the classes to count; None takes every class that occurs.
        slack: Additional misses that are allowed, as a share of the dense network's misses, 0 or more.
        margin: Lead of the softmax probability of an example's class over every other class, in [0, 1), up to which the
            example counts as a miss in the excess. Outputs have to be logits. The dense network has no margin.
        confidence: Confidence of the upper bounds, in (0, 1).
        batch_size: Maximum batch size.
        threads: onnxruntime's threads within an operator.

    Raises:
        ConfigError: An argument is out of range.
    """

    name: ClassVar[str] = "class_risk"
    scores_split: ClassVar[bool] = True

    def __init__(
        self,
        classes: Sequence[int] | None = None,
        slack: float = 0.0,
        margin: float = 0.0,
        confidence: float = 0.95,
        batch_size: int = 256,
        threads: int = 1,
    ) -> None:
        if classes is not None and (not len(classes) or any(type(c) is not int or c < 0 for c in classes)):
            raise ConfigError(
                f"evaluator.class_risk.classes must be null or list numbers of classes, 0 or more, not {classes!r}"
            )
        if slack < 0:
            raise ConfigError(f"evaluator.class_risk.slack must not be negative, but is {slack}")
        if not 0 <= margin < 1:
            raise ConfigError(f"evaluator.class_risk.margin must be at least 0 and below 1, but is {margin}")
        if not 0 < confidence < 1:
            raise ConfigError(
                f"evaluator.class_risk.confidence must lie between 0 and 1, e.g. 0.95, not {confidence}"
            )
        if batch_size < 1 or threads < 1:
            raise ConfigError(
                f"evaluator.class_risk: batch_size ({batch_size}) and threads ({threads}) must be at least 1"
            )
        self.classes = None if classes is None else tuple(dict.fromkeys(classes))
        self.slack, self.margin, self.confidence = slack, margin, confidence
        self.batch_size, self.threads = batch_size, threads
        self._batches = Batches()

    def columns(self, outline: Outline) -> frozenset[str] | None:
        """Returns the columns of the excess and of the chosen classes; None if the data tell which there are."""
        del outline
        if self.classes is None:
            return None
        by_class = [f"false_negatives_{number}" for number in self.classes]
        return metric_columns([EXCESS]) | metric_columns(by_class, "_rate", "_rate_high")

    def evaluate(self, artifact: Artifact, context: EvaluationContext) -> Evaluation:
        """Returns the measurements of one ONNX artifact on `context.split`.

        Raises:
            EvaluationError: The model cannot be run, its outputs are not finite, or it has no output for each class.
            ConfigError: A class of `classes` does not occur in the split.
        """
        labels = self._batches.labels(context.split)
        reference = context.reference.outputs
        if labels.dtype != np.int64 or labels.ndim != 1 or context.reference.artifact.input.output.whole:
            raise EvaluationError(
                f"class_risk counts examples of a class, but labels are {labels.dtype} of shape {labels.shape}; leave it out "
                "of `evaluator`"
            )
        outputs = reference if artifact.digest == context.reference.artifact.digest else None
        if outputs is None:
            runs = run_batches(
                artifact,
                lambda size: self._batches.of(context.split, size),
                self.batch_size,
                self.threads,
                context.exact_sums,
                rollout_of(context.split),
            )
            outputs = joined(list(runs))[0]
        classes = self._chosen(labels, outputs.shape[1])
        groups = group_numbers(context.groups)
        misses = _Misses(
            classes,
            np.array([np.sum(labels == c) for c in classes]),
            _misses(outputs, labels, classes),
            _misses(outputs, labels, classes, self.margin),
            _misses(reference, labels, classes),
            np.array([_worth(outputs, labels, c, groups) for c in classes]),
        )
        details = {
            self.name: misses.details(self.slack),
            "because": {str(Column.of(EXCESS)): misses.worst(self.slack, self.margin)},
        }
        return Evaluation(tuple(self._measurements(misses)), details)

    def _chosen(self, labels: NDArray[np.int64], n_outputs: int) -> tuple[int, ...]:
        occurring = np.unique(labels[labels >= 0]).tolist()
        if not occurring:
            raise EvaluationError("class_risk: the split has no labels, so false negatives cannot be counted")
        if n_outputs < 2 or occurring[-1] >= n_outputs:
            raise EvaluationError(
                f"class_risk needs an output for each class: the model has {n_outputs}, labels go up to {occurring[-1]}"
            )
        absent = [c for c in self.classes or () if c not in occurring]
        if absent:
            raise ConfigError(
                f"evaluator.class_risk.classes: no example of the split is of class {absent[0]}; "
                f"classes that occur: {', '.join(map(str, occurring[:MOST_CLASSES]))}"
            )
        return self.classes or tuple(occurring)

    def _measurements(self, misses: "_Misses") -> list[Measurement]:
        excess = float(misses.excess(self.slack).max())
        measurements = [Measurement(EXCESS, excess, "examples", "measured")]
        if len(misses.classes) > MOST_CLASSES:
            return measurements
        for number, n, missed, worth in zip(
            misses.classes,
            misses.examples.tolist(),
            misses.missed.tolist(),
            misses.independent.tolist(),
            strict=True,
        ):
            name = f"false_negatives_{number}"
            bound = clopper_pearson_bound(missed * worth / n, worth, self.confidence)
            measurements += [
                Measurement(name, missed, "examples", "measured"),
                Measurement(f"{name}_rate", 100 * missed / n, "%", "measured"),
                Measurement(f"{name}_rate_high", 100 * bound, "%", "measured"),
            ]
        return measurements


@dataclass(frozen=True)
class _Misses:
    """Numbers of examples and of misses by class, each `(n_classes,)`.

    Attributes:
        classes: Numbers of the classes.
        examples: Number of examples.
        missed: Number that the model misses.
        unsure: Number that the model misses or recognises by no more than the margin.
        dense: Number that the dense network misses.
        independent: Number of independent examples that tell as much about the share of misses.
    """

    classes: tuple[int, ...]
    examples: Counts
    missed: Counts
    unsure: Counts
    dense: Counts
    independent: NDArray[np.float64]

    def excess(self, slack: float) -> NDArray[np.float64]:
        """Returns the misses of each class beyond those allowed, `(n_classes,)`."""
        # rounded, because 100 * (1 + 0.15) is a little less than 115
        return np.asarray(np.round(self.unsure - self.dense * (1 + slack), 9), np.float64)

    def worst(self, slack: float, margin: float) -> str:
        """Describes the class with the largest excess, as text."""
        i = int(np.argmax(self.excess(slack)))
        unsure = f" or recognised by less than {margin:g}" if margin else ""
        return (
            f"class {self.classes[i]}: {self.unsure[i]} of {self.examples[i]} missed{unsure}, "
            f"{self.dense[i]} by the dense network"
        )

    def details(self, slack: float) -> dict[str, Any]:
        """Returns the classes with the largest excess, the largest first."""
        excess = self.excess(slack)
        worst = np.argsort(-excess, kind="stable")[:MOST_CLASSES].tolist()
        rows = [
            {
                "class": self.classes[i],
                "examples": int(self.examples[i]),
                "false_negatives": int(self.missed[i]),
                "with_margin": int(self.unsure[i]),
                "dense_false_negatives": int(self.dense[i]),
                "excess": float(excess[i]),
            }
            for i in worst
        ]
        return {"worst_class": self.classes[worst[0]], "classes": rows}


def _misses(
    outputs: NDArray[np.float32], labels: NDArray[np.int64], classes: Sequence[int], margin: float = 0.0
) -> Counts:
    missed = outputs.argmax(axis=1) != labels  # of equal outputs the first counts, as in top-1
    if margin > 0:
        shares = np.exp(outputs - outputs.max(axis=1, keepdims=True), dtype=np.float64)
        second, first = np.sort(shares / shares.sum(axis=1, keepdims=True), axis=1)[:, -2:].T
        missed |= first - second <= margin
    return np.array([np.sum(missed & (labels == c)) for c in classes])


def _worth(
    outputs: NDArray[np.float32], labels: NDArray[np.int64], number: int, groups: Groups | None
) -> float:
    """Returns how many independent examples the examples of a class are worth: a single group is worth one."""
    of_class = labels == number
    own = None if groups is None else group_numbers(groups[of_class])
    if own is None:
        return float(np.sum(of_class))
    missed = (outputs[of_class].argmax(axis=1) != number).astype(np.float64)
    return effective_size(missed, own) if own.max() else 1.0
