"""What is believed of candidates, given what was expected beforehand and what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from search.samplers.surrogate.model.kernel import Kernel

Array = NDArray[np.float64]
_JITTER = 1e-8


@dataclass(frozen=True)
class Posterior:
    """Independent normals.

    Attributes:
        mean: `(n,)`.
        std: `(n,)`; 0 means certain.
        own: Variance, one for all or `(n,)`, of what only a candidate's own trial tells, on top of `std`: what is left where its
            neighbours are known. It does not speak for one candidate or another, but for more trials.
    """

    mean: Array
    std: Array
    own: Array | float = 0.0

    @property
    def outcome_std(self) -> Array:
        """`(n,)`, of what a trial comes to."""
        return np.asarray(np.sqrt(self.std**2 + self.own))

    def combined(self, mean: Array, std: Array) -> "Posterior":
        """Returns the belief after another, independent source said `mean +- std`; NaN where it said nothing."""
        silent = ~np.isfinite(mean) | ~np.isfinite(std)
        ours = 1 / np.maximum(self.std, 1e-9) ** 2
        theirs = np.where(silent, 0.0, 1 / np.maximum(np.where(silent, 1.0, std), 1e-9) ** 2)
        joint = (ours * self.mean + theirs * np.where(silent, 0.0, mean)) / (ours + theirs)
        return Posterior(joint, np.sqrt(1 / (ours + theirs)))


@dataclass(frozen=True)
class Rows:
    """Measured candidates.

    Attributes:
        points: `(n, n_knobs)`.
        values: `(n,)`.
        noise: `(n,)`, known variances of the values (0 for a full evaluation).
    """

    points: Array
    values: Array
    noise: Array

    def __len__(self) -> int:
        return len(self.values)


class Prior(Protocol):
    """What is expected before the study's own rows."""

    @property
    def noise(self) -> float:
        """Variance of what cannot be predicted of a single value."""

    def mean(self, points: Array) -> Array:
        """Returns `(n,)`."""

    def covariance(self, a: Array, b: Array) -> Array:
        """Returns `(n, m)`."""

    def variance(self, points: Array) -> Array:
        """Returns `(n,)`."""


@dataclass(frozen=True)
class FlatPrior:
    """Expects nothing in particular of any candidate, only that similar ones do similarly."""

    kernel: Kernel
    noise: float

    def mean(self, points: Array) -> Array:
        """Returns zeros `(n,)`."""
        return np.zeros(len(points))

    def covariance(self, a: Array, b: Array) -> Array:
        """Returns `(n, m)`."""
        return self.kernel(a, b)

    def variance(self, points: Array) -> Array:
        """Returns `(n,)`."""
        return np.full(len(points), self.kernel.total)


def posterior(
    prior: Prior, rows: Rows, ahead: Array, pending: Array | None = None
) -> tuple[Posterior, float]:
    """Conditions a Gaussian process on rows (Rasmussen & Williams 2006, eq. 2.22-2.24 and 2.30).

    Args:
        prior: What is expected beforehand.
        rows: What was measured; may be empty.
        ahead: `(n, n_knobs)`, the candidates that are asked about.
        pending: `(p, n_knobs)`, candidates that are being measured: they make neighbours certain, not better or worse.

    Returns:
        The belief, and the logarithm of how probable the rows were.
    """
    from scipy.linalg import cholesky, solve_triangular

    mean, variance = prior.mean(ahead), prior.variance(ahead)
    seen = rows.points if pending is None or not len(pending) else np.concatenate([rows.points, pending])
    if not len(seen):
        return Posterior(mean, np.sqrt(np.maximum(variance, 0.0)), prior.noise), 0.0
    n = len(rows)
    noise = np.full(len(seen), prior.noise + _JITTER)
    noise[:n] += rows.noise
    factor = cholesky(prior.covariance(seen, seen) + np.diag(noise), lower=True, check_finite=False)
    reach = solve_triangular(factor, prior.covariance(seen, ahead), lower=True, check_finite=False)
    surprise = np.zeros(len(seen))
    head = factor[:n, :n]
    surprise[:n] = solve_triangular(head, rows.values - prior.mean(rows.points), lower=True) if n else 0.0
    # the pending rows' part of `surprise` is 0: each is taken to come out as predicted
    mean = mean + reach.T @ surprise
    variance = np.maximum(variance - np.einsum("ij,ij->j", reach, reach), 0.0)
    evidence = -0.5 * surprise @ surprise - np.log(np.diag(head)).sum() - 0.5 * n * np.log(2 * np.pi)
    return Posterior(mean, np.sqrt(variance), prior.noise), float(evidence)


def mixture(posteriors: Sequence[Posterior], log_weights: Sequence[float]) -> Posterior:
    """Returns the mean and standard deviation of a mixture (Bayesian model averaging, Hoeting et al. 1999, eq. 1)."""
    weights = np.exp(np.array(log_weights) - max(log_weights))
    weights /= weights.sum()
    means, stds = np.stack([b.mean for b in posteriors]), np.stack([b.std for b in posteriors])
    mean = weights @ means
    own = sum(weight * b.own for weight, b in zip(weights, posteriors, strict=True))
    return Posterior(mean, np.sqrt(np.maximum(weights @ (stds**2 + means**2) - mean**2, 0.0)), own)
