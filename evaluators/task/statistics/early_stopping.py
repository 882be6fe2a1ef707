"""Stops the evaluation of a candidate as soon as its mean score is confidently below a threshold.

The candidate's scores are compared, example by example, with the float model's, which are known for the whole split. The null
hypothesis concerns this split, not a population: the candidate's mean over all `n` examples is at least `least`. So sampling is
without replacement, and after `k` examples the bounds of the other `n - k` scores bound the total.

The test is a betting martingale: Waudby-Smith, Ramdas 2024, "Estimating means of bounded random variables by betting",
JRSS B 86, section 5 (sampling without replacement), one-sided, with the bets of their eq. 23 ("approximate GRAPA"). By
Ville's inequality it may be applied after every example: over all applications together, a candidate that reaches `least` is
stopped with a probability of at most 1 - confidence, for examples in random order. (The order is the split's own; in one that
holds all classes in proportion from the beginning, a prefix is more representative than a random one.)
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Metric
from evaluators.task.statistics.intervals import is_binary

_MOST_BET = 0.75  # largest share of the capital that one example can lose
_PRIOR_VARIANCE = 0.25  # of one prior pseudo-difference, in squared widths of a score's range
_LAST_SHARE = 0.05  # of the examples: with no more than that left, the evaluation is not stopped
_SLACK = 1e-9  # relative tolerance, because sums of scores are rounded


@dataclass(frozen=True)
class Partial:
    """Estimate of a candidate's mean score over all examples from the first ones.

    Attributes:
        n_examples: Number of examples that were scored.
        mean: The float model's mean score over all examples, minus `drop`.
        drop: Mean of the float model's scores minus the candidate's, over the examples that were scored.
        error: Standard error of both.
    """

    n_examples: int
    mean: float
    drop: float
    error: float


class PairedTest:
    """Sequential test of whether a candidate's mean score over all examples is below `least`.

    Args:
        reference: The float model's scores of all examples, `(n,)`, in the order in which the candidate's come.
        least: Early-stopping threshold, as a mean score.
        confidence: Confidence of stopping, over all applications of the test together, in (0, 1).
        bounds: Lowest and highest possible score.
    """

    def __init__(
        self,
        reference: NDArray[np.float64],
        least: float,
        confidence: float = 0.999,
        bounds: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self._reference, self._least, self.confidence = reference, least, confidence
        self._low, self._high = bounds
        self._total = float(reference.sum())
        self._k = 0
        self._sum = self._sum_difference = self._sum_square = 0.0
        self._spread = 0.0  # sum of squared deviations of the differences from their running mean
        self._valid = True  # whether every score lies within the bounds
        self._log_capital = 0.0  # after the latest example
        self._largest_log_capital = 0.0  # after any example

    def add(self, scores: NDArray[np.float64]) -> None:
        """Adds the scores of the next examples, `(b,)`."""
        self._valid = self._valid and bool(np.all((scores >= self._low) & (scores <= self._high)))
        if not self._valid or len(scores) == 0:
            return
        differences = scores - self._reference[self._k : self._k + len(scores)]
        capital = self._log_capital + np.cumsum(self._log_growth(differences))
        self._log_capital = float(capital[-1])
        self._largest_log_capital = max(self._largest_log_capital, float(capital.max()))
        self._k += len(scores)
        self._sum += float(scores.sum())
        self._sum_difference += float(differences.sum())
        self._sum_square += float(differences @ differences)

    def give_up(self) -> None:
        """Disables stopping, because an output cannot be scored."""
        self._valid = False

    @property
    def certain(self) -> bool:
        """Whether the mean stays below `least` even if every remaining example gets the highest score."""
        n = len(self._reference)
        best = self._sum + (n - self._k) * self._high
        return self._valid and best < n * self._least - _SLACK * n * max(abs(self._least), 1.0)

    @property
    def hopeless(self) -> bool:
        """Whether to stop: the mean is confidently below `least`, and enough examples remain for a stop to save time."""
        n = len(self._reference)
        if not self._valid or n - self._k <= _LAST_SHARE * n:
            return False
        return self.certain or self._largest_log_capital >= -math.log1p(-self.confidence)

    def partial(self) -> Partial:
        """Returns the estimate from the scores so far, of which there must be at least one."""
        n, k = len(self._reference), self._k
        drop = -self._sum_difference / k
        # one prior pseudo-difference keeps the error above 0 where all differences are equal
        squares = max(0.0, self._sum_square - k * drop**2) + (self._high - self._low) ** 2 / k
        error = math.sqrt(squares) / k * math.sqrt((n - k) / max(n - 1, 1))
        return Partial(k, float(self._reference.mean()) - drop, drop, error)

    def _log_growth(self, differences: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the logarithm of the factor by which each of the next differences multiplies the capital, `(b,)`.

        The bet on an example depends only on the examples before it.
        """
        n, width = len(self._reference), self._high - self._low
        done = self._k + np.arange(len(differences))
        upto = self._sum_difference + np.cumsum(differences)
        before = upto - differences
        spread = (differences - upto / (done + 1)) ** 2
        spreads = self._spread + np.cumsum(spread)
        self._spread = float(spreads[-1])
        variances = (_PRIOR_VARIANCE * width**2 + spreads - spread) / (done + 1)
        # mean of the remaining differences if the mean score were exactly `least`
        required = (n * self._least - self._total - before) / (n - done)
        gap = required - before / (done + 1)
        room = np.maximum(width - required, 1e-12)
        bets = np.clip(gap / (variances + gap**2), 0.0, _MOST_BET / room)
        bets = np.where(required < width, bets, 0.0)  # else the result is certain
        growth: NDArray[np.float64] = np.log1p(-bets * (differences - required))
        return growth


def score_bounds(metric: Metric, reference: NDArray[np.generic]) -> tuple[float, float] | None:
    """Returns the lowest and the highest score that a metric can give; None if the test cannot be applied to it.

    Args:
        metric: The metric.
        reference: The float model's scores `(n,)`; if all are 0 or 1, and the metric states no bounds, these are the bounds.
    """
    if hasattr(metric, "pooled"):
        return None
    stated: tuple[float, float] | None = getattr(metric, "bounds", None)
    if stated is not None:
        return stated
    return (0.0, 1.0) if is_binary(np.asarray(reference, np.float64)) else None
