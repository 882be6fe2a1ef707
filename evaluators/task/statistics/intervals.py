"""Confidence intervals for scores and for paired differences of scores."""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluators.task.statistics.groups import Groups, effective_size


class Interval(NamedTuple):
    """A two-sided confidence interval."""

    low: float
    high: float


def wilson_interval(n_right: float, n: float, confidence: float = 0.95) -> Interval:
    """Interval for a proportion `n_right / n`, in [0, 1]; counts of an effective size need not be whole.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22: close to its nominal
    coverage even for small n and for proportions near 0 or 1, where the normal interval fails (Brown, Cai, DasGupta
    2001, "Interval estimation for a binomial proportion").

    Raises:
        ValueError: Not 0 <= n_right <= n, n = 0, or a confidence outside (0, 1).
    """
    if not 0 <= n_right <= n or n == 0:
        raise ValueError(f"0 <= n_right <= n and n > 0 must hold, but got (n_right={n_right}, n={n})")
    z = _quantile(confidence)
    p = n_right / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # The ends are exact where all or nothing is right; rounding must not move them.
    low = 0.0 if n_right == 0 else max(0.0, centre - half)
    high = 1.0 if n_right == n else min(1.0, centre + half)
    return Interval(low, high)


def clopper_pearson_bound(n_events: float, n: float, confidence: float = 0.95) -> float:
    """Exact one-sided upper bound for a proportion `n_events / n`, in (0, 1].

    Clopper, Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika
    26: the largest proportion under which so few events are not less likely than `1 - confidence`. It is never too
    small, however few events there are; for no events it is `1 - (1 - confidence)^(1/n)`. Numbers need not be whole: those
    of examples in groups are worth fewer (Korn, Graubard 1998, see `effective_size`).

    Raises:
        ValueError: Not 0 <= n_events <= n, n = 0, or a confidence outside (0, 1).
    """
    if not 0 <= n_events <= n or n == 0:
        raise ValueError(f"0 <= n_events <= n and n > 0 must hold, but got (n_events={n_events}, n={n})")
    if not 0 < confidence < 1:
        raise ValueError(f"0 < confidence < 1 must hold, but got {confidence}")
    if n_events == n:
        return 1.0
    from scipy.stats import beta

    return float(beta.ppf(confidence, n_events + 1, n - n_events))


def paired_proportion_interval(
    only_first: float, only_second: float, n: float, confidence: float = 0.95
) -> Interval:
    """Interval for the difference of two proportions over the same examples, in [-1, 1].

    Bonett, Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on paired
    data", Journal of Educational and Behavioral Statistics 37: Wald's interval after adding 1 to both discordant
    counts. It holds its coverage for small samples and for few discordant pairs, even if all of them go one way, where
    Wald's interval and gentler corrections fail (Fagerland, Lydersen, Laake 2014, "Recommended tests and confidence
    intervals for paired binomial proportions", Statistics in Medicine 33).

    Args:
        only_first: Examples that only the first model gets right.
        only_second: Examples that only the second model gets right.
        n: All examples.
        confidence: Nominal coverage.

    Returns:
        The interval of P(first right) - P(second right).

    Raises:
        ValueError: Impossible counts, or a confidence outside (0, 1).
    """
    if min(only_first, only_second) < 0 or only_first + only_second > n or n == 0:
        raise ValueError(
            f"only_first + only_second <= n and n > 0 must hold, but got "
            f"(only_first={only_first}, only_second={only_second}, n={n})"
        )
    z = _quantile(confidence)
    p_first, p_second = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    difference = p_first - p_second
    half = z * math.sqrt((p_first + p_second - difference**2) / (n + 2))
    return Interval(max(-1.0, difference - half), min(1.0, difference + half))


def mean_interval(
    values: NDArray[np.float64], confidence: float = 0.95, effective: float | None = None
) -> Interval:
    """Interval for the mean of `(n,)` values, by the central limit theorem; `effective` is their number if they are not independent.

    Raises:
        ValueError: Fewer than two values, or a confidence outside (0, 1).
    """
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two values, but got {len(values)}")
    mean = float(np.mean(values))
    half = _quantile(confidence) * float(np.std(values, ddof=1)) / math.sqrt(effective or len(values))
    return Interval(mean - half, mean + half)


def score_interval(
    scores: NDArray[np.float64], confidence: float = 0.95, groups: Groups | None = None
) -> Interval:
    """Interval for the mean of `(n,)` scores: Wilson's if every score is 0 or 1, else the normal one.

    With groups, of which there must be two at least, that of so many examples as `effective_size` says.
    """
    n = len(scores) if groups is None else effective_size(scores, groups, confidence)
    if is_binary(scores):
        return wilson_interval(n * float(np.mean(scores)), n, confidence)
    return mean_interval(scores, confidence, n)


def paired_interval(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    confidence: float = 0.95,
    groups: Groups | None = None,
) -> Interval:
    """Interval for mean(first) - mean(second) of `(n,)` scores of the same examples.

    Bonett and Price's if every score is 0 or 1, else the normal one of the differences; with groups, of which there must be two at
    least, that of so many examples as `effective_size` says of the differences.

    Raises:
        ValueError: The shapes differ, or there are too few scores.
    """
    if first.shape != second.shape:
        raise ValueError(f"paired scores must have one shape, but got {first.shape} and {second.shape}")
    n = len(first) if groups is None else effective_size(first - second, groups, confidence)
    if is_binary(first) and is_binary(second):
        only_first, only_second = (
            n * float(np.mean(differs)) for differs in (first > second, second > first)
        )
        return paired_proportion_interval(only_first, only_second, n, confidence)
    return mean_interval(first - second, confidence, n)


def is_binary(scores: NDArray[np.float64]) -> bool:
    """Whether every score is 0 or 1."""
    return bool(np.all((scores == 0) | (scores == 1)))


def _quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"0 < confidence < 1 must hold, but got {confidence}")
    return NormalDist().inv_cdf(0.5 + confidence / 2)
