"""Examples that come in groups, such as the sounds of one speaker, are alike: they tell less than as many independent ones."""

from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Groups = NDArray[np.int64]
"""The group of each example, `(n,)`, numbers from 0 on."""


def group_numbers(groups: NDArray[Any] | None) -> Groups | None:
    """Returns groups of any names, `(n,)`, as numbers; None without, or where each is of one example."""
    if groups is None:
        return None
    names, numbers = np.unique(groups, return_inverse=True)
    return None if len(names) == len(groups) else np.asarray(numbers.reshape(-1), np.int64)


def effective_size(values: NDArray[np.float64], groups: Groups, confidence: float = 0.95) -> float:
    """Returns the number of independent examples whose mean would be known as well as that of these.

    The number of examples over the design effect (Kish 1965, "Survey Sampling", section 8.2): the variance of the mean that allows for
    any dependence within groups (Liang, Zeger 1986, "Longitudinal data analysis using generalized linear models", Biometrika 73, eq. 2, for
    a mean, with the factor G / (G - 1) of few groups) over that of independent examples, at least 1. Rao, Scott 1992, "A simple
    method for the analysis of clustered binary data", Biometrics 48, so divide counts. Few groups know their own variance badly: the
    number shrinks by the square of the normal over the t quantile with G - 1 degrees of freedom (Korn, Graubard 1998, "Confidence intervals
    for proportions with small expected number of positive counts estimated from survey data", Survey Methodology 24).

    Where all values are equal nothing tells how alike groups are, and the design effect is 1: that of one differing example, too.

    Args:
        values: Scores or differences of scores, `(n,)`.
        groups: Their groups, at least 2.
        confidence: That of the interval which is made of it.
    """
    from scipy.stats import t

    n, n_groups = len(values), int(groups.max()) + 1
    deviations = values - np.mean(values)
    of_groups = np.bincount(groups, weights=deviations, minlength=n_groups)
    independent = float(np.sum(deviations**2)) / (n - 1) / n
    clustered = n_groups / (n_groups - 1) * float(np.sum(of_groups**2)) / n**2
    effect = max(1.0, clustered / independent) if independent > 0 else 1.0
    tail = 0.5 + confidence / 2
    return n / effect * (NormalDist().inv_cdf(tail) / float(t.ppf(tail, n_groups - 1))) ** 2
