"""Gaussian-process regression: the posterior of candidates given a prior and measured rows."""

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
    """Posterior of `n` candidates' latent values, taken as independent normals.

    Attributes:
        mean: `(n,)`.
        std: `(n,)`, standard deviation of the latent value; 0 means that it is known.
        noise: Variance, one for all or `(n,)`, of a trial's outcome about the latent value, which neighbours
            cannot reduce. It is the same before and after a choice among candidates, and counts only for what
            more trials would gain.
    """

    mean: Array
    std: Array
    noise: Array | float = 0.0

    @property
    def outcome_std(self) -> Array:
        """`(n,)`, standard deviation of a trial's outcome: latent value and noise."""
        return np.asarray(np.sqrt(self.std**2 + self.noise))

    def combined(self, mean: Array, std: Array) -> "Posterior":
        """Returns the posterior given an independent estimate `mean +- std` as well, `(n,)`; NaN where none."""
        missing = ~np.isfinite(mean) | ~np.isfinite(std)
        precision = 1 / np.maximum(self.std, 1e-9) ** 2
        other_precision = np.where(missing, 0.0, 1 / np.maximum(np.where(missing, 1.0, std), 1e-9) ** 2)
        combined_mean = (precision * self.mean + other_precision * np.where(missing, 0.0, mean)) / (
            precision + other_precision
        )
        return Posterior(combined_mean, np.sqrt(1 / (precision + other_precision)))


@dataclass(frozen=True)
class Rows:
    """Training data: `n` measured candidates.

    Attributes:
        points: `(n, n_knobs)`, X.
        values: `(n,)`, y.
        noise: `(n,)`, known variances of the values (0 for a full evaluation), on top of the prior's noise.
    """

    points: Array
    values: Array
    noise: Array

    def __len__(self) -> int:
        return len(self.values)


class Prior(Protocol):
    """A Gaussian-process prior: its mean function, covariance function and observation noise."""

    @property
    def noise(self) -> float:
        """Variance of a single measured value about the latent function."""

    def mean(self, points: Array) -> Array:
        """Returns the prior mean `(n,)` of points `(n, n_knobs)`."""

    def covariance(self, a: Array, b: Array) -> Array:
        """Returns the prior covariances `(n, m)` of points `(n, n_knobs)` and `(m, n_knobs)`."""

    def variance(self, points: Array) -> Array:
        """Returns the prior variances `(n,)` of points `(n, n_knobs)`: the diagonal of `covariance`."""


@dataclass(frozen=True)
class FlatPrior:
    """A prior with mean 0 everywhere.

    Attributes:
        kernel: Covariance function.
        noise: Variance of a single measured value about the latent function.
    """

    kernel: Kernel
    noise: float

    def mean(self, points: Array) -> Array:
        """Returns zeros `(n,)`."""
        return np.zeros(len(points))

    def covariance(self, a: Array, b: Array) -> Array:
        """Returns the kernel's covariances `(n, m)`."""
        return self.kernel(a, b)

    def variance(self, points: Array) -> Array:
        """Returns the kernel's variance for each point, `(n,)`."""
        return np.full(len(points), self.kernel.total)


@dataclass(frozen=True)
class Conditioned:
    """A Gaussian process given rows (Rasmussen & Williams 2006, eq. 2.22-2.24 and 2.30).

    X are the training points (the `m` rows and the `p` pending candidates), X* the query points, m and k the
    prior's mean and covariance, and L is the Cholesky factor of k(X, X) + noise:

        mean     = m(X*) + (L^-1 k(X, X*))^T L^-1 (y - m(X))
        variance = k(X*, X*) - |L^-1 k(X, X*)|^2

    Attributes:
        prior: Mean, covariance and noise before any row.
        observed: `(m + p, n_knobs)`, X.
        factor: `(m + p, m + p)`, L.
        whitened_residuals: `(m + p,)`, L^-1 (y - m(X)); 0 for pending candidates, which are taken to come out as predicted.
        log_likelihood: Log marginal likelihood of the rows.
    """

    prior: Prior
    observed: Array
    factor: Array
    whitened_residuals: Array
    log_likelihood: float

    def __call__(self, query: Array) -> Posterior:
        """Returns the posterior of query points `(n, n_knobs)`."""
        from scipy.linalg import solve_triangular

        mean, variance = self.prior.mean(query), self.prior.variance(query)
        if not len(self.observed):
            return Posterior(mean, np.sqrt(np.maximum(variance, 0.0)), self.prior.noise)
        # L^-1 k(X, X*), (m + p, n)
        whitened_cross = solve_triangular(
            self.factor, self.prior.covariance(self.observed, query), lower=True, check_finite=False
        )
        mean = mean + whitened_cross.T @ self.whitened_residuals
        variance = np.maximum(variance - np.einsum("ij,ij->j", whitened_cross, whitened_cross), 0.0)
        return Posterior(mean, np.sqrt(variance), self.prior.noise)


def conditioned(prior: Prior, rows: Rows, pending: Array | None = None) -> Conditioned:
    """Conditions a Gaussian process on rows.

    Args:
        prior: Mean, covariance and noise before any row.
        rows: The `m` measured candidates; may be empty.
        pending: `(p, n_knobs)`, candidates of running trials: they reduce the variance of neighbours and
            leave the mean.
    """
    from scipy.linalg import cholesky, solve_triangular

    observed = rows.points if pending is None or not len(pending) else np.concatenate([rows.points, pending])
    if not len(observed):
        return Conditioned(prior, observed, np.empty((0, 0)), np.empty(0), 0.0)
    m = len(rows)
    noise = np.full(len(observed), prior.noise + _JITTER)
    noise[:m] += rows.noise
    factor = cholesky(prior.covariance(observed, observed) + np.diag(noise), lower=True, check_finite=False)
    residuals = np.zeros(len(observed))
    head = factor[:m, :m]
    residuals[:m] = solve_triangular(head, rows.values - prior.mean(rows.points), lower=True) if m else 0.0
    log_likelihood = -0.5 * residuals @ residuals - np.log(np.diag(head)).sum() - 0.5 * m * np.log(2 * np.pi)
    return Conditioned(prior, observed, factor, residuals, float(log_likelihood))


def predicted_in_turn(prior: Prior, rows: Rows) -> tuple[Array, Array]:
    """Returns the predictive mean and standard deviation of each row given those before it, `(n,)` both.

    With L the Cholesky factor and z = L^-1 (y - m), row i deviates from its prediction by L_ii z_i, of standard deviation L_ii.
    """
    from scipy.linalg import cholesky, solve_triangular

    covariance = prior.covariance(rows.points, rows.points) + np.diag(prior.noise + rows.noise + _JITTER)
    factor = cholesky(covariance, lower=True, check_finite=False)
    whitened = solve_triangular(factor, rows.values - prior.mean(rows.points), lower=True, check_finite=False)
    stds = np.diag(factor)
    return rows.values - stds * whitened, stds


def mixture(posteriors: Sequence[Posterior], log_weights: Sequence[float]) -> Posterior:
    """Returns the mean and standard deviation of a mixture (Bayesian model averaging, Hoeting et al. 1999, eq. 1).

    Args:
        posteriors: Of the same `n` candidates, one per model.
        log_weights: Logarithms of the models' posterior probabilities, up to a constant.
    """
    weights = np.exp(np.array(log_weights) - max(log_weights))
    weights /= weights.sum()
    means, stds = np.stack([b.mean for b in posteriors]), np.stack([b.std for b in posteriors])
    mean = weights @ means
    noise = sum(weight * b.noise for weight, b in zip(weights, posteriors, strict=True))
    return Posterior(mean, np.sqrt(np.maximum(weights @ (stds**2 + means**2) - mean**2, 0.0)), noise)
