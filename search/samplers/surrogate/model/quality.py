"""Quality scores of candidates, from their first low-fidelity results and calibration statistics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.samplers.surrogate.model.targets import NormalScores

Array = NDArray[np.float64]
_RIDGE = 0.1  # ridge penalty per row, for collinear statistics, relative to their variance of 1
_NOISE = 0.05  # noise variance of the kriging, relative to the variance of the residuals


@dataclass(frozen=True)
class Quality:
    """Quality scores of `n` candidates, in standard deviations among those with a low-fidelity result.

    Attributes:
        mean: `(n,)`.
        std: `(n,)`, standard deviation of the score; 0 where it was observed.
        trend: `(n,)`, the part that the statistics alone predict.
    """

    mean: Array
    std: Array
    trend: Array


def observed_quality(features: Sequence[Mapping[str, float]]) -> Array:
    """Returns the mean of the features' normal scores, `(m,)`.

    Features have different units, but higher is better for all of them. Those that are not finite for every
    candidate are left out.

    Args:
        features: `PartialResult.features` of `m` candidates.
    """
    names = [name for name in features[0] if all(np.isfinite(f.get(name, np.nan)) for f in features)]
    columns = [np.array([f[name] for f in features]) for name in names]
    scores = [NormalScores.of(column)(column) for column in columns if np.ptp(column) > 0]
    return np.mean(scores, axis=0) if scores else np.zeros(len(features))


def expected_quality(
    evaluated: NDArray[np.intp], quality: Array, statistics: Array, correlations: Array
) -> Quality:
    """Extends the quality from the candidates with a low-fidelity result to all candidates.

    Ridge regression on the statistics, and kriging of the residuals by the similarity of knobs (kriging with
    a trend; Rasmussen and Williams 2006, section 2.7, with the trend's coefficients taken as known).

    Args:
        evaluated: `(m,)`, positions of the candidates with a low-fidelity result.
        quality: `(m,)`, their scores.
        statistics: `(n, n_statistics)`, of all candidates, standardised, 0 where unknown.
        correlations: `(m, n)`, of the evaluated candidates with all.
    """
    from scipy.linalg import cho_factor, cho_solve

    design = np.concatenate([np.ones((len(statistics), 1)), statistics], axis=1)  # (n, 1 + n_statistics)
    observed = design[evaluated]
    ridge = _RIDGE * len(evaluated) * np.eye(design.shape[1])
    ridge[0, 0] = 1e-9  # the intercept is not penalised
    trend = design @ np.linalg.solve(observed.T @ observed + ridge, observed.T @ quality)
    residuals = quality - trend[evaluated]
    variance = float(np.mean(residuals**2)) + 1e-6
    factor = cho_factor(correlations[:, evaluated] + _NOISE * np.eye(len(evaluated)), lower=True)
    mean = trend + correlations.T @ cho_solve(factor, residuals)
    explained = np.einsum(
        "ij,ij->j", correlations, cho_solve(factor, correlations)
    )  # (n,), share of variance
    std = np.sqrt(variance * np.clip(1 + _NOISE - explained, 0.0, None))
    mean[evaluated], std[evaluated] = quality, 0.0
    return Quality(mean, std, trend)
