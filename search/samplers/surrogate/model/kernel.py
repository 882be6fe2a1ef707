"""The covariance function over knobs, and its hyperparameters fitted to measured rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.samplers.surrogate.model.encoding import Encoding

Array = NDArray[np.float64]
_JITTER = 1e-8  # added to the diagonal: keeps the matrix positive definite where two candidates are the same


@dataclass(frozen=True)
class Kernel:
    """Kernel over knobs: a product term, an additive term, a term of counts, and a constant.

    `variance * exp(-sum(rates * distances)) + additive * (1 - mean(distances)) + counted * (1 - distance of counts) + offset`

    Over categorical knobs the first term is the product kernel of Hutter et al. 2011 (SMAC, eq. 2):
    interactions of all knobs, which are the weaker the lower the rates. The second is a sum of one function
    per knob (Duvenaud et al. 2011, arXiv 1112.4394): the main effects, which a few rows determine for many
    candidates. The third is what like knobs, of layers or blocks, have in common: it depends on how many of them
    have each value, not on which, so that even fewer rows determine it. A space without such knobs has no such term.

    Attributes:
        encoding: Computes the distances along each axis.
        variance: Variance of the product term for one candidate.
        rates: `(n_axes,)`, inverse length scales; 0 means that the axis has no effect.
        offset: Variance of a constant that all candidates share.
        additive: Variance of the additive term for one candidate.
        counted: Variance of the term of counts for one candidate.
    """

    encoding: Encoding
    variance: float
    rates: Array
    offset: float = 0.0
    additive: float = 0.0
    counted: float = 0.0

    def __call__(self, a: Array, b: Array) -> Array:
        """Returns the covariances `(n, m)` of points `(n, n_knobs)` and `(m, n_knobs)`."""
        n_axes = len(self.rates)
        alone = np.full(n_axes, self.additive / max(n_axes, 1))
        exponent, lost = self.encoding.weighted(np.stack([self.rates, alone]), a, b)
        total = np.subtract(self.additive + self.offset, lost, out=lost)
        np.exp(np.negative(exponent, out=exponent), out=exponent)
        exponent *= self.variance
        total += exponent
        if self.counted:
            total += self.counted * (1 - self.encoding.counts.distance(a, b))
        return np.asarray(total)

    @property
    def total(self) -> float:
        """Variance of one candidate, the shared constant included."""
        return self.variance + self.additive + self.counted + self.offset


@dataclass(frozen=True)
class Block:
    """Training data of one task: rows that are independent of those of other blocks.

    Attributes:
        points: `(n, n_knobs)`.
        values: `(n,)`, about standardised; each may be the mean of several measurements.
        repeats: `(n,)`, how many measurements each value is the mean of.
        noise: `(n,)`, known variances of the values, on top of the fitted noise.
        scatter: Sum of squared deviations of the measurements from these means.
    """

    points: Array
    values: Array
    repeats: Array
    noise: Array
    scatter: float = 0.0


def fitted(
    encoding: Encoding, blocks: Sequence[Block], offset: float = 1.0, counted: bool = False
) -> tuple[Kernel, float]:
    """Fits the hyperparameters to the blocks: maximises log marginal likelihood plus log prior density.

    The prior is log-normal. It expects rates at which candidates that differ in every knob still correlate a
    little, and little noise, and so keeps a few rows from deciding that a knob has no effect.

    Args:
        encoding: Computes the distances along each axis.
        blocks: At least one.
        offset: Variance of a constant that the rows of a block share.
        counted: Whether there is a term of counts.

    Returns:
        The kernel, and the variance of the noise of a single measurement.
    """
    from scipy.optimize import minimize

    distances = [
        np.stack([encoding.distance(axis, b.points, b.points) for axis in range(encoding.n_axes)])
        for b in blocks
    ]
    counts = [encoding.counts.distance(b.points, b.points) for b in blocks]
    prior_mean = _prior_mean(encoding.n_axes, counted)

    def loss(theta: Array) -> tuple[float, Array]:
        deviation = theta - prior_mean
        parts = [_loss(theta, d, c, b, offset) for d, c, b in zip(distances, counts, blocks, strict=True)]
        return float(sum(p[0] for p in parts) + 0.5 * deviation @ deviation), sum(
            (p[1] for p in parts), deviation
        )

    bounds = [(c - 4, c + 4) for c in prior_mean]
    found = minimize(loss, prior_mean, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 30}).x
    return _kernel(encoding, found, offset)


def unfitted(encoding: Encoding) -> tuple[Kernel, float]:
    """Returns the kernel and the noise variance at the prior's mean, for use before there are rows."""
    prior_mean = _prior_mean(encoding.n_axes)
    return _kernel(encoding, prior_mean, 1.0)


def _kernel(encoding: Encoding, theta: Array, offset: float) -> tuple[Kernel, float]:
    """Returns the kernel and the noise variance of the parameters `theta`, see `_prior_mean`."""
    rates, amplitudes = _parts(theta, encoding.n_axes)
    variance, noise_var, additive, *counted = (float(v) for v in np.exp(2 * amplitudes))
    return Kernel(encoding, variance, np.exp(rates), offset, additive, *counted), noise_var


def _parts(theta: Array, n_axes: int) -> tuple[Array, Array]:
    """Returns the logarithms of the rates `(n_axes,)` and of the amplitudes, see `_prior_mean`."""
    return theta[:n_axes], theta[n_axes:]


def _prior_mean(n_axes: int, counted: bool = False) -> Array:
    """Returns the prior mean of `theta`, the parameters that are fitted.

    These are the logarithms of the rates and of the standard deviations of the product term, the noise, the additive
    term and, where `counted`, the term of counts.
    """
    # the product term has half of the variance, the others share the rest
    rest = 0.5 * np.log(0.25 if counted else 0.5)
    rates = np.full(n_axes, -np.log(2 * np.sqrt(max(n_axes, 1))))
    return np.concatenate([rates, [0.5 * np.log(0.5), np.log(0.1), rest, *[rest] * counted]])


def _loss(theta: Array, distances: Array, counts: Array, block: Block, offset: float) -> tuple[float, Array]:
    """Returns a block's negative log marginal likelihood, up to a constant, and its gradient, of `theta`'s shape.

    Rasmussen & Williams 2006, eq. 5.8 and 5.9.

    Args:
        theta: See `_prior_mean`.
        distances: `(n_axes, n, n)`, between the block's points.
        counts: `(n, n)`, their distances by counts.
        block: `n` rows.
        offset: Variance of the block's constant.
    """
    log_rates, log_amplitudes = _parts(theta, len(distances))
    rates, (variance, noise_var, *others) = np.exp(log_rates), np.exp(2 * log_amplitudes)
    kernel = variance * np.exp(-np.tensordot(rates, distances, 1))  # the product term, (n, n)
    shapes = [
        1 - distances.sum(axis=0) / max(len(rates), 1),
        1 - counts,
    ]  # of the additive term, of that of counts
    parts = [amplitude * shape for amplitude, shape in zip(others, shapes, strict=False)]
    n, extra = len(block.values), float(np.sum(block.repeats - 1))
    try:
        inverse, log_det = _inverse(
            kernel + sum(parts) + offset + np.diag(noise_var / block.repeats + block.noise + _JITTER)
        )
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(theta)
    alpha = inverse @ block.values  # K^-1 y, (n,)
    weight = 0.5 * (inverse - np.outer(alpha, alpha))  # derivative of the loss by K, (n, n)
    shaped = weight * kernel
    by_noise = 2 * noise_var * np.sum(np.diag(weight) / block.repeats) - block.scatter / noise_var + extra
    by_rates = -rates * (distances.reshape(len(rates), n * n) @ shaped.ravel())
    loss = 0.5 * block.values @ alpha + 0.5 * log_det
    # repeated measurements of one point
    loss += 0.5 * block.scatter / noise_var + extra * log_amplitudes[1]
    by_parts = [2 * np.sum(weight * part) for part in parts]
    return float(loss), np.concatenate([by_rates, [2 * shaped.sum(), by_noise, *by_parts]])


def _inverse(matrix: Array) -> tuple[Array, float]:
    """Returns the inverse `(n, n)` and the log determinant of a positive definite matrix."""
    from scipy.linalg import cho_solve, cholesky

    factor = cholesky(matrix, lower=True, check_finite=False)
    inverse = cho_solve((factor, True), np.eye(len(matrix)), check_finite=False)
    return np.asarray(inverse), float(2 * np.log(np.diag(factor)).sum())
