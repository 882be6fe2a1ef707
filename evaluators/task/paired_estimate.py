"""Estimates a model's metric on a whole split from outputs on its first examples, paired with the float model's outputs."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Labels, Metric, Outputs, PooledMetric, sign_of
from evaluators.task.layer_sqnr import sqnr_db
from evaluators.task.metrics.same_class import SameClass
from evaluators.task.similarity import agreement_for
from evaluators.task.statistics.bootstrap import resampled_values
from evaluators.task.statistics.intervals import is_binary
from evaluators.task.statistics.scores import Statistics, is_pooled, statistics_of, value_of
from spaces.errors import EvaluationError
from spaces.stages.inputs import each, n_rows, parts_of

Scores = NDArray[np.float64]

MOST_RESAMPLED = 2_000_000  # outputs that are perturbed by resampled errors
RESAMPLES = 100  # for the standard error of a metric that is no mean over examples
LEAST_DB = -200.0


@dataclass(frozen=True)
class PairedEstimate:
    """Estimates from the first examples of a split.

    Attributes:
        n_examples: Number of these examples.
        drop: Estimated drop of the metric over the whole split, in the metric's unit; above 0 is worse than float.
        drop_error: Its standard error.
        features: Quantities by which to rank models, higher is better.
    """

    n_examples: int
    drop: float
    drop_error: float
    features: dict[str, float]


class PairedReference:
    """The float model's outputs on a whole split, with which low-fidelity evaluations are paired.

    Args:
        metric: Scores the outputs.
        outputs: The float model's outputs on all `n` examples, as `Reference.outputs`.
        labels: `(n, ...)`.
        seed: Seed of the resampling.
        agreement: Scores outputs with the float model's outputs as labels; None compares classes.
        whole: Whether the task judges outputs in their own shape: they are no class scores.

    Attributes:
        value: The float model's metric on the whole split, in its unit.
    """

    def __init__(
        self,
        metric: Metric,
        outputs: Outputs,
        labels: Labels,
        seed: int = 0,
        agreement: Metric | None = None,
        whole: bool = False,
    ) -> None:
        self.metric, self.outputs, self.labels = metric, outputs, labels
        self._seed, self._agreement = seed, agreement_for(agreement, outputs, whole)
        self.scores: Statistics = statistics_of(metric, outputs, labels)
        self.value = value_of(metric, self.scores)
        self._resamples: dict[int, Scores] = {}  # of the float model on the first examples, by their number
        self._rows = _as_rows(outputs)
        self._power = np.sum(np.square(self._rows, dtype=np.float64), axis=1)
        self._by_power = np.argsort(self._power, kind="stable")

    def estimate(self, outputs: Outputs) -> PairedEstimate:
        """Returns the estimate from a model's outputs on the first `k` examples.

        `features` are, if outputs have the float model's shape: `output_sqnr_db`, the signal-to-noise ratio of all
        outputs together; `median_sqnr_db`, the median over examples; the task's agreement, in which higher is better;
        and where classes are told apart also `minus_divergence` (the mean Kullback-Leibler divergence of the softmax of the
        outputs from the float model's, negative) and `resampled`, the metric that the whole split would have if every
        output had an error like those on the first examples.
        """
        k = n_rows(outputs)
        scores = statistics_of(self.metric, outputs, self.labels[:k])
        drop, error = self._drop(scores)
        return PairedEstimate(k, drop, error, self._features(outputs))

    def _drop(self, scores: Statistics) -> tuple[float, float]:
        """Returns by how much the metric is worse than the float model's, and the standard error, in the metric's unit."""
        k, n, sign = len(scores), len(self.scores), sign_of(self.metric)
        first = self.scores[:k]
        if not is_pooled(self.metric):
            drop, error = paired_drop(sign * first, sign * scores, n)
            return self.metric.scale * drop, self.metric.scale * error
        unknown = max(abs(self.value), self.metric.scale)  # an error as large as the metric itself
        try:
            drop = sign * (value_of(self.metric, first) - value_of(self.metric, scores))
        except EvaluationError:  # too few examples for the metric to have a value
            return 0.0, unknown
        metric: PooledMetric = self.metric  # type: ignore[assignment]
        if k not in self._resamples:
            self._resamples[k] = resampled_values(metric, first, RESAMPLES)
        differences = self._resamples[k] - resampled_values(metric, scores, RESAMPLES)
        finite = differences[np.isfinite(differences)]
        spread = float(np.std(finite)) * self.metric.scale if len(finite) > 1 else unknown
        remaining = max(n - k, 0) / max(n - 1, 1)
        return drop, spread * math.sqrt(remaining)

    def _features(self, outputs: Outputs) -> dict[str, float]:
        rows = _as_rows(outputs)
        k = len(rows)
        reference = self._rows[:k]
        if rows.shape != reference.shape:
            return {}
        errors = rows.astype(np.float64) - reference
        noise = np.sum(errors**2, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            sqnr = np.clip(10 * np.log10(self._power[:k] / noise), LEAST_DB, -LEAST_DB)
        features = {
            "output_sqnr_db": sqnr_db(float(self._power[:k].sum()), float(noise.sum())),
            "median_sqnr_db": float(np.nanmedian(sqnr)) if np.isfinite(sqnr).any() else LEAST_DB,
        }
        if (agreement := self._agreed(outputs)) is not None:
            features["agreement"] = agreement
        if isinstance(self._agreement, SameClass):
            features["minus_divergence"] = -float(np.mean(_divergences(reference, rows)))
            features["resampled"] = self._resampled(errors)
        return features

    def _agreed(self, outputs: Outputs) -> float | None:
        """Returns the agreement with the float model's outputs, negative if lower is better; None if it has no value."""
        metric, k = self._agreement, n_rows(outputs)
        if metric is None:
            return None
        try:
            found = statistics_of(metric, outputs, each(lambda a: a[:k], self.outputs))
            return sign_of(metric) * value_of(metric, found)
        except EvaluationError:
            return None

    def _resampled(self, errors: NDArray[np.float64]) -> float:
        """Returns the metric of the whole split if every example had the error of one of the first whose output is as large.

        The float model's margins are known for all examples, and a few examples suffice to estimate how large errors are:
        this has a lower variance than counting the predictions that changed.
        """
        n, k = len(self._rows), len(errors)
        rng = np.random.default_rng([self._seed, k])
        rows = np.arange(n)
        most = max(k, MOST_RESAMPLED // self._rows.shape[1])
        if n > most:
            rows = np.sort(rng.choice(n, most, replace=False))
        # each row takes the error of one of the first examples, at about the same rank by the power of outputs
        rank = np.empty(n, np.int64)
        rank[self._by_power] = np.arange(n)
        first_by_power = np.argsort(self._power[:k], kind="stable")
        near = rank[rows] * k // n + rng.integers(-2, 3, len(rows))
        donors = first_by_power[np.clip(near, 0, k - 1)]
        perturbed = (self._rows[rows] + errors[donors]).astype(np.float32)
        scores = statistics_of(self.metric, perturbed, self.labels[rows])
        sign = sign_of(self.metric)
        lost = value_of(self.metric, self.scores[rows]) - value_of(self.metric, scores)
        return sign * (self.value - lost)


def paired_drop(reference: Scores, candidate: Scores, n_all: int) -> tuple[float, float]:
    """Estimates the mean of `reference - candidate` over all examples from the first ones.

    The standard error is that of a mean of `k` examples drawn without replacement from `n_all`. Where scores are right or
    wrong, one is added to both counts of examples on which the models differ, as in Bonett and Price 2012 (Journal of
    Educational and Behavioral Statistics 37): no difference among few examples does not show that there is none.

    Args:
        reference: The float model's scores, `(k,)`.
        candidate: The other model's scores, `(k,)`.
        n_all: Number of all examples.

    Returns:
        The estimate and its standard error, in units of a score.
    """
    k = len(reference)
    difference = reference - candidate
    remaining = (n_all - k) / max(n_all - 1, 1)  # finite population correction
    if is_binary(reference) and is_binary(candidate):
        worse, better = (float(np.sum(difference == sign) + 1) / (k + 2) for sign in (1, -1))
        variance = (worse + better - (worse - better) ** 2) / (k + 2)
    else:
        variance = float(np.var(difference, ddof=1)) / k if k > 1 else math.inf
    return float(difference.mean()), math.sqrt(variance * remaining) if remaining > 0 else 0.0


def _divergences(reference: NDArray[np.float32], outputs: NDArray[np.float32]) -> Scores:
    log_p, log_q = _log_softmax(reference), _log_softmax(outputs)
    return np.asarray(np.sum(np.exp(log_p) * (log_p - log_q), axis=1))


def _log_softmax(outputs: NDArray[np.float32]) -> Scores:
    logits = outputs.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


def _as_rows(outputs: Outputs) -> NDArray[np.float32]:
    """Returns all outputs of each example side by side, `(n, k)`."""
    return np.concatenate([part.reshape(len(part), -1) for part in parts_of(outputs)], axis=1)
