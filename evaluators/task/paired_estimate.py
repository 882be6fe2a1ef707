"""Estimates a model's metric on a whole split from outputs on its first examples, paired with the float model's outputs."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Metric
from evaluators.task.layer_sqnr import sqnr_db
from evaluators.task.statistics.intervals import is_binary

Scores = NDArray[np.float64]

MOST_RESAMPLED = 2_000_000  # outputs that are perturbed by resampled errors
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
        outputs: The float model's outputs, `(n, n_outputs)` float32.
        labels: `(n,)` int64.
        seed: Seed of the resampling.
    """

    def __init__(
        self, metric: Metric, outputs: NDArray[np.float32], labels: NDArray[np.int64], seed: int = 0
    ) -> None:
        self.metric, self.outputs, self.labels = metric, outputs, labels
        self.scores: Scores = np.asarray(metric.per_example(outputs, labels), np.float64)
        self._seed = seed
        self._power = np.sum(np.square(outputs, dtype=np.float64), axis=1)
        self._by_power = np.argsort(self._power, kind="stable")

    def estimate(self, outputs: NDArray[np.float32]) -> PairedEstimate:
        """Returns the estimate from a model's outputs on the first examples, `(k, n_outputs)`.

        `features` are, if outputs have the float model's shape: `output_sqnr_db`, the signal-to-noise ratio of all
        outputs together; `median_sqnr_db`, the median over examples; and for a model with several outputs also `agreement`
        (per cent of examples with the float model's largest output), `minus_divergence` (the mean Kullback-Leibler divergence
        of the softmax of the outputs from the float model's, negative) and `resampled`, the metric that the whole
        split would have if every output had an error like those on the first examples.
        """
        k = len(outputs)
        scores = np.asarray(self.metric.per_example(outputs, self.labels[:k]), np.float64)
        drop, error = paired_drop(self.scores[:k], scores, len(self.scores))
        scale = self.metric.scale
        return PairedEstimate(k, scale * drop, scale * error, self._features(outputs))

    def _features(self, outputs: NDArray[np.float32]) -> dict[str, float]:
        k = len(outputs)
        reference = self.outputs[:k]
        if outputs.shape != reference.shape:
            return {}
        errors = outputs.astype(np.float64) - reference
        noise = np.sum(errors**2, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            sqnr = np.clip(10 * np.log10(self._power[:k] / noise), LEAST_DB, -LEAST_DB)
        features = {
            "output_sqnr_db": sqnr_db(float(self._power[:k].sum()), float(noise.sum())),
            "median_sqnr_db": float(np.nanmedian(sqnr)) if np.isfinite(sqnr).any() else LEAST_DB,
        }
        if outputs.shape[1] > 1:
            features["agreement"] = 100 * float(np.mean(outputs.argmax(axis=1) == reference.argmax(axis=1)))
            features["minus_divergence"] = -float(np.mean(_divergences(reference, outputs)))
            features["resampled"] = self._resampled(errors)
        return features

    def _resampled(self, errors: NDArray[np.float64]) -> float:
        """Returns the metric of the whole split if every example had the error of one of the first whose output is as large.

        The float model's margins are known for all examples, and a few examples suffice to estimate how large errors are:
        this has a lower variance than counting the predictions that changed.
        """
        n, k = len(self.outputs), len(errors)
        rng = np.random.default_rng([self._seed, k])
        rows = np.arange(n)
        most = max(k, MOST_RESAMPLED // self.outputs.shape[1])
        if n > most:
            rows = np.sort(rng.choice(n, most, replace=False))
        # each row takes the error of one of the first examples, at about the same rank by the power of outputs
        rank = np.empty(n, np.int64)
        rank[self._by_power] = np.arange(n)
        first_by_power = np.argsort(self._power[:k], kind="stable")
        near = rank[rows] * k // n + rng.integers(-2, 3, len(rows))
        donors = first_by_power[np.clip(near, 0, k - 1)]
        perturbed = (self.outputs[rows] + errors[donors]).astype(np.float32)
        scores = np.asarray(self.metric.per_example(perturbed, self.labels[rows]), np.float64)
        whole = float(self.scores.mean())
        return self.metric.scale * (whole - float(np.mean(self.scores[rows] - scores)))


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
