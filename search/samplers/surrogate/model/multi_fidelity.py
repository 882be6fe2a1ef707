"""What is believed of candidates of which looks have told: quality, short estimates and full results in one model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.samplers.surrogate.model.gaussian_process import Posterior
from search.samplers.surrogate.model.quality import Quality

Array = NDArray[np.float64]
_BEND = 1.0  # standard deviations of quality over which its effect may bend
# Amplitudes expected of slope, bend, knobs, and a candidate's own. The bend is the largest: drops grow with the noise up to
# a collapse, and vanish in the metric's own noise from some quality on, where a slope would go on to promise more of the best.
_CENTRES = np.log([0.5, 2.0, 0.5, 0.5])
_FIRM = 4.0  # inverse variance of their logarithms: noisy estimates cannot tell that there is nothing of one's own
_OFFSET = 2.0  # of the level, on the compressed scale
_SHARED = 0.5  # correlation of the errors of two candidates' looks at the same examples: what is hard is hard for both
_JITTER = 1e-6
_MOST_FITTED = 120


@dataclass(frozen=True)
class Compressed:
    """A scale on which differences of the metric's own noise count as they are, larger ones by their ratio.

    Attributes:
        reference: The value that becomes 0: the float model's, or a constraint's limit.
        noise: Standard error of a full evaluation; below it nothing can be told apart.
    """

    reference: float
    noise: float

    def __call__(self, values: Array) -> Array:
        """Returns `(n,)`."""
        return np.asarray(np.arcsinh((values - self.reference) / self.noise))

    def inverse(self, scaled: Array) -> Array:
        """Returns the values, `(n,)`."""
        return np.asarray(self.reference + self.noise * np.sinh(scaled))

    def error(self, errors: Array, scaled: Array) -> Array:
        """Returns standard errors of values near `scaled` on this scale."""
        return np.asarray(errors / self.noise / np.cosh(scaled))


@dataclass(frozen=True)
class Estimates:
    """What looks and trials said of an objective or constraint, higher is better.

    Attributes:
        at: `(m,)`, positions of the candidates.
        values: `(m,)`.
        errors: `(m,)`, standard errors; 0 for full results.
        shares: `(m,)`, of all examples that were looked at, the first ones each time; 1 for full results.
    """

    at: NDArray[np.intp]
    values: Array
    errors: Array
    shares: Array

    def chosen(self, which: NDArray[np.generic]) -> "Estimates":
        """Returns some of them."""
        return Estimates(self.at[which], self.values[which], self.errors[which], self.shares[which])

    @property
    def common(self) -> Array:
        """Correlations of the errors, `(m, m)`: a longer look has the examples of a shorter one among its own."""
        left = np.maximum(1 / self.shares - 1, 1e-9)  # variances, but for a factor
        ratio = np.sqrt(left[:, None] / left[None])
        found = _SHARED * np.minimum(ratio, 1 / ratio)
        np.fill_diagonal(found, 1.0)
        return np.asarray(found)


def posterior_of(
    quality: Quality,
    alike: Array,
    estimates: Estimates,
    scale: Compressed,
    log_amplitudes: Array | None = None,
) -> tuple[Posterior, Array, Array]:
    """Conditions a Gaussian process on estimates (Rasmussen and Williams 2006, eq. 2.25 and 2.26).

    Its mean rises with quality, and with what statistics say, by a slope that the estimates decide and that may bend; candidates with similar knobs are off
    the line together, and each has something of its own, of which only its own estimates tell.

    Args:
        quality: Of all `n` candidates.
        alike: `(m, n)`, correlations by knobs of the candidates with estimates with all.
        estimates: At least one.
        scale: The scale that the belief is on.
        log_amplitudes: What an earlier call returned, to be used as it is; None fits them.

    Returns:
        The belief, the part of its standard deviation that comes of doubt in quality, `(n,)`, and the logarithms of the
        amplitudes of its parts.
    """
    from scipy.linalg import cho_factor, cho_solve

    at = estimates.at
    q = np.stack([quality.mean, quality.computed], axis=1)
    raw = scale(estimates.values)
    near, common = raw, estimates.common
    same = np.equal.outer(at, np.arange(len(q))).astype(np.float64)
    amplitudes = _CENTRES if log_amplitudes is None else log_amplitudes
    # how noisy an estimate is depends on where the truth lies, not on where the estimate fell
    for _ in range(2):
        errors = scale.error(estimates.errors, near)
        noise = common * np.outer(errors, errors) + _JITTER * np.eye(len(at))
        if log_amplitudes is None:
            amplitudes = _fitted(q[at], alike[:, at], same[:, at], raw, noise, amplitudes)
        variances = np.exp(2 * amplitudes)
        across = _covariance(variances, q[at], q, alike) + variances[3] * same
        factor = cho_factor(across[:, at] + noise, lower=True)
        weights = cho_solve(factor, raw)
        mean = across.T @ weights
        near = mean[at]
    prior = variances[0] * np.sum(q**2, axis=1) + variances[1:].sum() + _OFFSET**2
    variance = prior - np.einsum("ij,ij->j", across, cho_solve(factor, across))
    rise = _rise(variances, q[at], quality, alike, weights)
    return Posterior(mean, np.sqrt(np.maximum(variance, _JITTER) + rise**2)), np.abs(rise), amplitudes


def _rise(variances: Array, seen: Array, quality: Quality, alike: Array, weights: Array) -> Array:
    """Returns by how much the mean changes over the doubt in each candidate's quality, `(n,)`."""
    if not quality.doubt.any():
        return np.zeros(len(quality.mean))
    ends = [
        _covariance(
            variances, seen, np.stack([quality.mean + sign * quality.doubt, quality.computed], axis=1), alike
        ).T
        @ weights
        for sign in (1.0, -1.0)
    ]
    return np.asarray((ends[0] - ends[1]) / 2)


def _covariance(variances: Array, a: Array, b: Array, alike: Array) -> Array:
    near = _near(a, b)
    return np.asarray(variances[0] * (a @ b.T) + _OFFSET**2 + near * (variances[1] + variances[2] * alike))


def _near(a: Array, b: Array) -> Array:
    """Returns correlations `(n, m)` by quality, `(n, 2)` and `(m, 2)`."""
    gap = np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1)[None] - 2 * a @ b.T
    return np.asarray(np.exp(-np.maximum(gap, 0.0) / _BEND**2 / 2))


def _fitted(q: Array, alike: Array, same: Array, values: Array, noise: Array, start: Array) -> Array:
    """Returns logarithms of the amplitudes under which the values are most probable, weighed against what is expected."""
    from scipy.linalg import cho_factor, cho_solve
    from scipy.optimize import minimize

    keep = np.argsort(np.diag(noise), kind="stable")[:_MOST_FITTED]
    q, values = q[keep], values[keep]
    alike, same, noise = (matrix[np.ix_(keep, keep)] for matrix in (alike, same, noise))
    near = _near(q, q)
    parts: Sequence[Array] = (q @ q.T, near, near * alike, same)

    def loss(theta: Array) -> tuple[float, Array]:
        variances = np.exp(2 * theta)
        matrix = sum(v * part for v, part in zip(variances, parts, strict=True)) + _OFFSET**2 + noise
        factor = cho_factor(matrix, lower=True, check_finite=False)
        alpha = cho_solve(factor, values, check_finite=False)
        inverse = cho_solve(factor, np.eye(len(q)), check_finite=False)
        gradient = [
            v * (np.sum(inverse * part) - alpha @ part @ alpha)
            for v, part in zip(variances, parts, strict=True)
        ]
        away = theta - _CENTRES
        fit = 0.5 * values @ alpha + float(np.log(np.diag(factor[0])).sum())
        return fit + 0.5 * _FIRM * float(away @ away), np.array(gradient) + _FIRM * away

    bounds = [(c - 3, c + 3) for c in _CENTRES]
    return np.asarray(
        minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 15}).x
    )
