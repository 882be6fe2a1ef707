"""Stops judging a candidate as soon as it is confidently below what is needed.

The candidate's scores are compared, example by example, with the float model's, which are known for the whole split. What
is asked is about that split, not about a population behind it: whether the candidate's mean over all `n` examples is at
least `least`. So after `k` examples the rest bounds the total, and sampling is without replacement.

The test is a betting martingale: Waudby-Smith, Ramdas 2024, "Estimating means of bounded random variables by betting",
JRSS B 86, section 5 (sampling without replacement), one-sided, with the bets of their eq. 23 ("approximate GRAPA"). By
Ville's inequality it may be looked at after every example: over all looks together, a candidate that is good enough is
stopped with a probability of at most 1 - confidence, for examples in random order. (The order is the split's own; in one that
holds all classes in proportion from the beginning, a prefix tells more than a random one.)
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MOST_BET = 0.75  # share of the capital that the worst outcome could take, so that no single example ruins it
_PRIOR_VARIANCE = 0.25  # of one imagined difference, in squared widths of a score's range
_LAST_SHARE = 0.05  # of the examples: with no more than that to go, it goes on to the end
_SLACK = 1e-9  # relative; sums of scores are rounded


@dataclass(frozen=True)
class Partial:
    """What the first examples say of a mean score over all of them.

    Attributes:
        n_examples: How many were scored.
        mean: The float model's mean over all examples, less `drop`.
        drop: Mean of the float model's scores less the candidate's, over the examples that were scored.
        error: Standard error of both.
    """

    n_examples: int
    mean: float
    drop: float
    error: float


class PairedTest:
    """Whether a candidate's mean score over all examples is confidently below `least`.

    Args:
        reference: The float model's scores of all examples, `(n,)`, in the order in which the candidate's come.
        least: The mean score that is needed.
        confidence: Of a stop, over all looks together, in (0, 1).
        bounds: Least and greatest score that there can be.
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
        self._spread = 0.0  # squared distances of the differences from the mean up to each
        self._valid = True  # every score lies within its bounds
        self._log_capital = 0.0  # at the last example
        self._most_capital = 0.0  # at any

    def add(self, scores: NDArray[np.float64]) -> None:
        """Takes the next examples' scores `(b,)`."""
        self._valid = self._valid and bool(np.all((scores >= self._low) & (scores <= self._high)))
        if not self._valid or len(scores) == 0:
            return
        differences = scores - self._reference[self._k : self._k + len(scores)]
        capital = self._log_capital + np.cumsum(self._log_growth(differences))
        self._log_capital = float(capital[-1])
        self._most_capital = max(self._most_capital, float(capital.max()))
        self._k += len(scores)
        self._sum += float(scores.sum())
        self._sum_difference += float(differences.sum())
        self._sum_square += float(differences @ differences)

    def give_up(self) -> None:
        """Never stops any more: what came is no score."""
        self._valid = False

    @property
    def certain(self) -> bool:
        """Whether not even the best scores for the rest would do."""
        n = len(self._reference)
        best = self._sum + (n - self._k) * self._high
        return self._valid and best < n * self._least - _SLACK * n * max(abs(self._least), 1.0)

    @property
    def hopeless(self) -> bool:
        """Whether to stop: the candidate is confidently too bad, and stopping saves something."""
        n = len(self._reference)
        if not self._valid or n - self._k <= _LAST_SHARE * n:
            return False
        return self.certain or self._most_capital >= -math.log1p(-self.confidence)

    def partial(self) -> Partial:
        """Returns the estimate so far; there must be an example."""
        n, k = len(self._reference), self._k
        drop = -self._sum_difference / k
        # one imagined difference keeps the error above 0 where all differences are equal
        squares = max(0.0, self._sum_square - k * drop**2) + (self._high - self._low) ** 2 / k
        error = math.sqrt(squares) / k * math.sqrt((n - k) / max(n - 1, 1))
        return Partial(k, float(self._reference.mean()) - drop, drop, error)

    def _log_growth(self, differences: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the logarithm of what each of the next differences multiplies the capital by, `(b,)`.

        A bet on an example uses only what came before it.
        """
        n, width = len(self._reference), self._high - self._low
        done = self._k + np.arange(len(differences))
        upto = self._sum_difference + np.cumsum(differences)
        before = upto - differences
        spread = (differences - upto / (done + 1)) ** 2
        spreads = self._spread + np.cumsum(spread)
        self._spread = float(spreads[-1])
        variances = (_PRIOR_VARIANCE * width**2 + spreads - spread) / (done + 1)
        # mean of what is left, were the total just enough
        needed = (n * self._least - self._total - before) / (n - done)
        gap = needed - before / (done + 1)
        room = np.maximum(width - needed, 1e-12)
        bets = np.clip(gap / (variances + gap**2 + 1e-300), 0.0, _MOST_BET / room)
        bets = np.where((needed > -width) & (needed < width), bets, 0.0)  # else there is nothing to find out
        growth: NDArray[np.float64] = np.log1p(-bets * (differences - needed))
        return growth
