"""How good candidates look: one number each, from whatever first looks and statistics say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.samplers.surrogate.model.targets import NormalScores

Array = NDArray[np.float64]
_RIDGE = 0.1  # against statistics that say the same, relative to their variance
_NOISE = 0.05  # of what candidates that are alike have in common


@dataclass(frozen=True)
class Quality:
    """How good `n` candidates look, in standard deviations of those that were looked at.

    Attributes:
        mean: `(n,)`.
        doubt: `(n,)`, its standard deviation; 0 where a look has told.
        computed: `(n,)`, what statistics alone say.
    """

    mean: Array
    doubt: Array
    computed: Array


def observed_quality(features: Sequence[Mapping[str, float]]) -> Array:
    """Returns the mean of the features' normal scores, `(m,)`: features differ in units, and agree in which is better."""
    names = [name for name in features[0] if all(np.isfinite(f.get(name, np.nan)) for f in features)]
    columns = [np.array([f[name] for f in features]) for name in names]
    scores = [NormalScores.of(column)(column) for column in columns if np.ptp(column) > 0]
    return np.mean(scores, axis=0) if scores else np.zeros(len(features))


def expected_quality(looked: NDArray[np.intp], quality: Array, statistics: Array, alike: Array) -> Quality:
    """Extends quality from the candidates that were looked at to all.

    A straight line in the statistics, and what is left over by likeness of the knobs (kriging with a trend; Rasmussen and
    Williams 2006, section 2.7, with the trend's coefficients taken for certain).

    Args:
        looked: `(m,)`, positions of the candidates that were looked at.
        quality: `(m,)`, theirs.
        statistics: `(n, n_statistics)`, standardised, 0 where unknown.
        alike: `(m, n)`, correlations of those that were looked at with all.
    """
    from scipy.linalg import cho_factor, cho_solve

    terms = np.concatenate([np.ones((len(statistics), 1)), statistics], axis=1)
    there = terms[looked]
    ridge = _RIDGE * len(looked) * np.eye(terms.shape[1])
    ridge[0, 0] = 1e-9
    trend = terms @ np.linalg.solve(there.T @ there + ridge, there.T @ quality)
    left = quality - trend[looked]
    variance = float(np.mean(left**2)) + 1e-6
    factor = cho_factor(alike[:, looked] + _NOISE * np.eye(len(looked)), lower=True)
    mean = trend + alike.T @ cho_solve(factor, left)
    explained = np.einsum("ij,ij->j", alike, cho_solve(factor, alike))
    doubt = np.sqrt(variance * np.clip(1 + _NOISE - explained, 0.0, None))
    mean[looked], doubt[looked] = quality, 0.0
    return Quality(mean, doubt, trend)
