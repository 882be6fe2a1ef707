"""Multi-fidelity Gaussian process: quality scores, low-fidelity estimates and full results in one model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.samplers.surrogate.model.gaussian_process import Posterior
from search.samplers.surrogate.model.quality import Quality

Array = NDArray[np.float64]
_QUALITY_LENGTH = 1.0  # length scale of the curve over quality, in standard deviations of quality
# Expected logarithms of the amplitudes (standard deviations on the compressed scale) of the kernel's four terms: slope over
# quality, curve over quality, knobs, candidate. The curve's is the largest: drops grow with the noise up to a collapse, and
# beyond some quality they vanish in the metric's own noise, where a straight line would still rise.
_CENTRES = np.log([0.5, 2.0, 0.5, 0.5])
_PRECISION = (
    4.0  # inverse prior variance of these logarithms: noisy estimates alone cannot show that a term is absent
)
_OFFSET = 2.0  # standard deviation of the constant term
_SHARED = 0.5  # correlation of two candidates' errors on the same examples: hard examples are hard for both
_JITTER = 1e-6
_MAX_FITTED = 120  # estimates to which the amplitudes are fitted


@dataclass(frozen=True)
class Compressed:
    """The scale `arcsinh((value - reference) / noise)`: linear within the metric's own noise, logarithmic beyond it.

    Attributes:
        reference: The value that becomes 0: the float model's, or a constraint's limit.
        noise: Standard error of a full evaluation, in the metric's unit; smaller differences cannot be
            resolved.
    """

    reference: float
    noise: float

    def __call__(self, values: Array) -> Array:
        """Returns values `(n,)` mapped to this scale."""
        return np.asarray(np.arcsinh((values - self.reference) / self.noise))

    def inverse(self, scaled: Array) -> Array:
        """Returns the values `(n,)` of positions on this scale."""
        return np.asarray(self.reference + self.noise * np.sinh(scaled))

    def error(self, errors: Array, scaled: Array) -> Array:
        """Returns standard errors `(n,)` on this scale, to the first order, of values at the positions `scaled`."""
        return np.asarray(errors / self.noise / np.cosh(scaled))


@dataclass(frozen=True)
class Estimates:
    """Low-fidelity estimates and full results of one objective or constraint, higher is better.

    Attributes:
        at: `(m,)`, positions of the candidates.
        values: `(m,)`.
        errors: `(m,)`, standard errors; 0 for full results.
        shares: `(m,)`, fidelities: the share of all examples that were used, always the first ones; 1 for
            full results.
    """

    at: NDArray[np.intp]
    values: Array
    errors: Array
    shares: Array

    def chosen(self, which: NDArray[np.generic]) -> "Estimates":
        """Returns the estimates that a mask `(m,)` or positions select."""
        return Estimates(self.at[which], self.values[which], self.errors[which], self.shares[which])

    @property
    def error_correlations(self) -> Array:
        """Correlations of the errors, `(m, m)`: a larger subset contains the smaller one.

        The error of a mean over a share s of the examples has a variance proportional to `1 / s - 1`, and of
        two nested subsets the covariance is that of the larger one.
        """
        variances = np.maximum(1 / self.shares - 1, 1e-9)  # up to a factor
        ratio = np.sqrt(variances[:, None] / variances[None])
        correlations = _SHARED * np.minimum(ratio, 1 / ratio)
        np.fill_diagonal(correlations, 1.0)
        return np.asarray(correlations)


def posterior_of(
    quality: Quality,
    correlations: Array,
    estimates: Estimates,
    scale: Compressed,
    log_amplitudes: Array | None = None,
) -> tuple[Posterior, Array, Array]:
    """Conditions a Gaussian process on estimates (Rasmussen and Williams 2006, eq. 2.25 and 2.26).

    With `q` the two quality coordinates of a candidate (mean and trend), `v` the variances of the four terms
    and `c` the correlation by knobs, the kernel of candidates a and b is

        v0 * q_a @ q_b + exp(-|q_a - q_b|^2 / 2) * (v1 + v2 * c_ab) + v3 * [a = b] + constant

    that is, a straight line over quality, a smooth curve over it, deviations that candidates with similar
    knobs share, and a deviation of each candidate, which only its own estimates inform.

    Args:
        quality: Of all `n` candidates.
        correlations: `(m, n)`, correlations by knobs between the candidates of the estimates and all
            candidates.
        estimates: `m` of them, at least one.
        scale: The scale of the model and of the posterior.
        log_amplitudes: `(4,)`, returned by an earlier call, to be used as they are; None fits them.

    Returns:
        The posterior of the `n` candidates; the part of its standard deviation that is due to uncertain
        quality, `(n,)`; and the logarithms of the terms' amplitudes, `(4,)`.
    """
    from scipy.linalg import cho_factor, cho_solve

    at = estimates.at
    q = np.stack([quality.mean, quality.trend], axis=1)  # (n, 2)
    y = scale(estimates.values)  # (m,)
    latent, error_correlations = y, estimates.error_correlations
    same = np.equal.outer(at, np.arange(len(q))).astype(np.float64)  # (m, n), 1 where both are one candidate
    amplitudes = _CENTRES if log_amplitudes is None else log_amplitudes
    # an error's size on this scale depends on the true value, which the posterior mean approximates better than `y`
    for _ in range(2):
        errors = scale.error(estimates.errors, latent)
        noise = error_correlations * np.outer(errors, errors) + _JITTER * np.eye(len(at))  # (m, m)
        if log_amplitudes is None:
            amplitudes = _fitted(q[at], correlations[:, at], same[:, at], y, noise, amplitudes)
        variances = np.exp(2 * amplitudes)
        cross = _covariance(variances, q[at], q, correlations) + variances[3] * same  # K(X, X*), (m, n)
        factor = cho_factor(cross[:, at] + noise, lower=True)
        weights = cho_solve(factor, y)  # (K + noise)^-1 y, (m,)
        mean = cross.T @ weights
        latent = mean[at]
    prior_variance = variances[0] * np.sum(q**2, axis=1) + variances[1:].sum() + _OFFSET**2
    variance = prior_variance - np.einsum("ij,ij->j", cross, cho_solve(factor, cross))
    quality_std = _quality_std(variances, q[at], quality, correlations, weights)
    std = np.sqrt(np.maximum(variance, _JITTER) + quality_std**2)
    return Posterior(mean, std), np.abs(quality_std), amplitudes


def _quality_std(
    variances: Array, observed: Array, quality: Quality, correlations: Array, weights: Array
) -> Array:
    """Returns the part of the posterior's standard deviation that is due to uncertain quality, `(n,)`.

    It is half the change of the posterior mean from one standard deviation of quality below to one above.

    Args:
        variances: `(4,)`, of the kernel's terms.
        observed: `(m, 2)`, quality coordinates of the candidates of the estimates.
        quality: Of all `n` candidates.
        correlations: `(m, n)`.
        weights: `(m,)`, `(K + noise)^-1 y`.
    """
    if not quality.std.any():
        return np.zeros(len(quality.mean))
    ends = [
        _covariance(
            variances,
            observed,
            np.stack([quality.mean + sign * quality.std, quality.trend], axis=1),
            correlations,
        ).T
        @ weights
        for sign in (1.0, -1.0)
    ]
    return np.asarray((ends[0] - ends[1]) / 2)


def _covariance(variances: Array, a: Array, b: Array, correlations: Array) -> Array:
    """Returns the kernel `(m, n)` without the candidates' own term, for quality coordinates `(m, 2)` and `(n, 2)`."""
    near = _near(a, b)
    return np.asarray(
        variances[0] * (a @ b.T) + _OFFSET**2 + near * (variances[1] + variances[2] * correlations)
    )


def _near(a: Array, b: Array) -> Array:
    """Returns squared-exponential correlations `(m, n)` of quality coordinates `(m, 2)` and `(n, 2)`."""
    squares = np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1)[None] - 2 * a @ b.T
    return np.asarray(np.exp(-np.maximum(squares, 0.0) / _QUALITY_LENGTH**2 / 2))


def _fitted(q: Array, correlations: Array, same: Array, y: Array, noise: Array, start: Array) -> Array:
    """Returns the logarithms of the amplitudes, `(4,)`, with the highest posterior density.

    Maximises the log marginal likelihood (Rasmussen and Williams 2006, eq. 5.8; its gradient is eq. 5.9) plus
    the log density of a normal prior about `_CENTRES`. Only the estimates with the smallest noise are used.

    Args:
        q: `(m, 2)`, quality coordinates.
        correlations: `(m, m)`, by knobs.
        same: `(m, m)`, 1 where two estimates are of one candidate.
        y: `(m,)`, values on the compressed scale.
        noise: `(m, m)`, covariance of their errors.
        start: `(4,)`, where the optimisation begins.
    """
    from scipy.linalg import cho_factor, cho_solve
    from scipy.optimize import minimize

    keep = np.argsort(np.diag(noise), kind="stable")[:_MAX_FITTED]
    q, y = q[keep], y[keep]
    correlations, same, noise = (matrix[np.ix_(keep, keep)] for matrix in (correlations, same, noise))
    near = _near(q, q)
    terms: Sequence[Array] = (q @ q.T, near, near * correlations, same)

    def loss(theta: Array) -> tuple[float, Array]:
        variances = np.exp(2 * theta)
        matrix = sum(v * term for v, term in zip(variances, terms, strict=True)) + _OFFSET**2 + noise
        factor = cho_factor(matrix, lower=True, check_finite=False)
        alpha = cho_solve(factor, y, check_finite=False)
        inverse = cho_solve(factor, np.eye(len(q)), check_finite=False)
        gradient = [
            v * (np.sum(inverse * term) - alpha @ term @ alpha)
            for v, term in zip(variances, terms, strict=True)
        ]
        deviation = theta - _CENTRES
        fit = 0.5 * y @ alpha + float(np.log(np.diag(factor[0])).sum())
        return fit + 0.5 * _PRECISION * float(deviation @ deviation), np.array(
            gradient
        ) + _PRECISION * deviation

    bounds = [(c - 3, c + 3) for c in _CENTRES]
    return np.asarray(
        minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 15}).x
    )
