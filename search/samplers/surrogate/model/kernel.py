"""How alike the results of two candidates are expected to be, and what the rows at hand say about that."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.samplers.surrogate.model.encoding import Encoding

Array = NDArray[np.float64]
_JITTER = 1e-8  # keeps factorisations possible where two candidates are the same


@dataclass(frozen=True)
class Kernel:
    """Kernel over knobs: `variance * exp(-sum(rates * distances)) + additive * (1 - mean(distances))`.

    Over choices the first term is the product kernel of Hutter et al. 2011 (SMAC, eq. 2): all interactions of knobs, the higher ones
    the weaker the lower the rates. The second is a sum of one function a knob (Duvenaud et al. 2011, arXiv 1112.4394):
    what knobs do on their own, which few rows tell of many candidates.

    Attributes:
        encoding: Knows the distances.
        variance: Of one candidate, by all knobs together.
        rates: `(n_axes,)`; 0 means that the axis makes no difference.
        offset: Variance of a constant that all candidates share.
        additive: Variance of one candidate, by the knobs one by one.
    """

    encoding: Encoding
    variance: float
    rates: Array
    offset: float = 0.0
    additive: float = 0.0

    def __call__(self, a: Array, b: Array) -> Array:
        """Returns the covariances `(n, m)` of points `(n, n_knobs)` and `(m, n_knobs)`."""
        n_axes = len(self.rates)
        alone = np.full(n_axes, self.additive / max(n_axes, 1))
        exponent, total = self.encoding.weighted(np.stack([-self.rates, -alone]), a, b)
        total += self.additive + self.offset
        np.exp(exponent, out=exponent)
        exponent *= self.variance
        total += exponent
        return np.asarray(total)

    @property
    def total(self) -> float:
        """Variance of one candidate, the shared constant included."""
        return self.variance + self.additive + self.offset


@dataclass(frozen=True)
class Block:
    """Rows that are independent of those of other blocks.

    Attributes:
        points: `(n, n_knobs)`.
        values: `(n,)`, about standardised.
        repeats: `(n,)`, how many measurements each value is the mean of.
        noise: `(n,)`, variances that are known of the values, on top of what is fitted.
        scatter: Sum of squares of the measurements about these means.
    """

    points: Array
    values: Array
    repeats: Array
    noise: Array
    scatter: float = 0.0


def fitted(encoding: Encoding, blocks: Sequence[Block], offset: float = 1.0) -> tuple[Kernel, float]:
    """Finds the kernel under which the values are most probable, weighed against a prior that expects nothing special.

    The prior is log-normal: on the rates so that candidates which differ in everything are still a little alike, on
    the noise so that it is small. It keeps few rows from deciding that a knob has no effect.

    Args:
        encoding: Knows the distances.
        blocks: At least one.
        offset: Variance of a constant that the rows of a block share.

    Returns:
        The kernel, and the variance of the noise.
    """
    from scipy.optimize import minimize

    distances = [
        np.stack([encoding.distance(axis, b.points, b.points) for axis in range(encoding.n_axes)])
        for b in blocks
    ]
    centre = _centre(encoding.n_axes)

    def loss(theta: Array) -> tuple[float, Array]:
        away = theta - centre
        parts = [_loss(theta, d, b, offset) for d, b in zip(distances, blocks, strict=True)]
        return float(sum(p[0] for p in parts) + 0.5 * away @ away), sum((p[1] for p in parts), away)

    bounds = [(c - 4, c + 4) for c in centre]
    found = minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 30}).x
    return _kernel(encoding, found, offset)


def unfitted(encoding: Encoding) -> tuple[Kernel, float]:
    """Returns the kernel that is expected before any row is seen."""
    centre = _centre(encoding.n_axes)
    return _kernel(encoding, centre, 1.0)


def _kernel(encoding: Encoding, theta: Array, offset: float) -> tuple[Kernel, float]:
    variance, noise_var, additive = (float(v) for v in np.exp(2 * theta[:3]))
    return Kernel(encoding, variance, np.exp(theta[3:]), offset, additive), noise_var


def _centre(n_axes: int) -> Array:
    """Logarithms of the three standard deviations (all knobs together, noise, one by one) and the rates that are expected."""
    half = 0.5 * np.log(0.5)  # of the variance to each
    return np.concatenate([[half, np.log(0.1), half], np.full(n_axes, -np.log(2 * np.sqrt(max(n_axes, 1))))])


def _loss(theta: Array, distances: Array, block: Block, offset: float) -> tuple[float, Array]:
    """Returns a block's negative log likelihood, up to a constant, and its gradient (Rasmussen & Williams 2006, eq. 5.9)."""
    variance, noise_var, additive = np.exp(2 * theta[:3])
    rates = np.exp(theta[3:])
    kernel = variance * np.exp(-np.tensordot(rates, distances, 1))
    alike = additive * (1 - distances.sum(axis=0) / max(len(rates), 1))
    n, extra = len(block.values), float(np.sum(block.repeats - 1))
    try:
        inverse, log_det = _inverse(
            kernel + alike + offset + np.diag(noise_var / block.repeats + block.noise + _JITTER)
        )
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(theta)
    alpha = inverse @ block.values
    weight = 0.5 * (inverse - np.outer(alpha, alpha))
    shaped = weight * kernel
    by_noise = 2 * noise_var * np.sum(np.diag(weight) / block.repeats) - block.scatter / noise_var + extra
    by_rates = -rates * (distances.reshape(len(rates), n * n) @ shaped.ravel())
    loss = 0.5 * block.values @ alpha + 0.5 * log_det
    loss += 0.5 * block.scatter / noise_var + extra * theta[1]  # measurements of the same point
    by_additive = 2 * np.sum(weight * alike)
    return float(loss), np.concatenate([[2 * shaped.sum(), by_noise, by_additive], by_rates])


def _inverse(matrix: Array) -> tuple[Array, float]:
    from scipy.linalg import cho_solve, cholesky

    factor = cholesky(matrix, lower=True, check_finite=False)
    inverse = cho_solve((factor, True), np.eye(len(matrix)), check_finite=False)
    return np.asarray(inverse), float(2 * np.log(np.diag(factor)).sum())
